"""PyTorch for `benchmarks.scoring`, in a process and, where pins clash, an environment of its own.

    PYTHON benchmarks/scoring_peer.py FOLDER CORES

FOLDER holds the model as transformers reads it. Answers lines of JSON as `generation_peers` does.
"""

import json
import sys
import time


def main() -> None:
    """Answers until its input ends."""
    folder, cores = sys.argv[1], int(sys.argv[2])
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        import numpy as np
        import torch
        import transformers
    except ImportError as error:
        print(json.dumps({"absent": str(error)}), file=out, flush=True)
        return
    torch.set_num_threads(cores)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def windows(rows: int, tokens: int) -> float:
        """The mean -log p of the tokens that `generation_ours.Figures.windows` reads."""
        vocab = model.config.vocab_size
        ids = torch.from_numpy(np.random.default_rng(0).integers(0, vocab, (rows, tokens)))
        with torch.inference_mode():
            logits = model(ids).logits
            labels = ids.roll(-1, 1)
            nll = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), reduction="none"
            )
        return float(nll.mean())

    said = f"transformers {transformers.__version__}, torch {torch.__version__}"
    print(json.dumps({"ready": said}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began, worked = time.perf_counter(), time.process_time()
        found = windows(asked["rows"], asked["tokens"])
        took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked}
        count = asked["rows"] * asked["tokens"]
        print(json.dumps({**took, "tokens": count, "nll": found}), file=out, flush=True)


if __name__ == "__main__":
    main()
