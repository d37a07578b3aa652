"""PyTorch for `benchmarks.scoring`, in a process and, where pins clash, an environment of its own.

Started with a name, the folder with the model as transformers reads it, and the cores. It answers
lines of JSON as `generation_peers` does.
"""

import sys
from typing import Any

from benchmarks.generation_peers import Answer, serve


def start() -> tuple[str, Answer]:
    """Loads the model; returns the versions, and what scores windows."""
    import numpy as np
    import torch
    import transformers

    folder, cores = sys.argv[2], int(sys.argv[3])
    torch.set_num_threads(cores)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def windows(asked: dict[str, Any]) -> dict[str, Any]:
        """The mean -log p of the tokens that `generation_ours.Figures.windows` reads."""
        shape, vocab = (asked["rows"], asked["tokens"]), model.config.vocab_size
        ids = torch.from_numpy(np.random.default_rng(0).integers(0, vocab, shape))
        with torch.inference_mode():
            logits = model(ids).logits
            labels = ids.roll(-1, 1)
            nll = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), reduction="none"
            )
        return {"tokens": ids.numel(), "nll": float(nll.mean())}

    return f"transformers {transformers.__version__}, torch {torch.__version__}", windows


if __name__ == "__main__":
    serve(start)
