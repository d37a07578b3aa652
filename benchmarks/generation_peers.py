"""A peer of `benchmarks.generation`, in a process and, where pins clash, an environment of its own.

Started with its name, the folder with the model, and the cores. It answers lines of JSON: after one
that says that it is ready, for each request `{"rows": 32, "tokens": 64, "prompt": [ids]}` the
seconds, the processor's seconds and the tokens that were drawn. Nothing but the peer is imported.
"""

import concurrent.futures
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Draw = Callable[[list[int], int, int], int]
"""Draws (prompt, rows, tokens); returns how many tokens all rows have drawn."""
Answer = Callable[[dict[str, Any]], dict[str, Any]]
"""Does what a line asks for; returns the tokens, and what else is said of them."""


def transformers(folder: Path, cores: int) -> tuple[str, Draw]:
    """`generate` of transformers in float32, with its own key-value cache."""
    import torch
    import transformers

    torch.set_num_threads(cores)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32)

    def draw(prompt: list[int], rows: int, tokens: int) -> int:
        ids = torch.tensor([prompt] * rows)
        found = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        return found.shape[0] * (found.shape[1] - len(prompt))

    return f"transformers {transformers.__version__}, torch {torch.__version__}", draw


def llama_cpp(folder: Path, cores: int) -> tuple[str, Draw]:
    """llama.cpp's own batching server, in this process, on a GGUF file of float32."""
    import importlib.metadata

    import xllamacpp

    def serve(rows: int) -> "xllamacpp.Server":
        params = xllamacpp.CommonParams()
        params.model.path = str(folder / "f32.gguf")
        params.n_parallel, params.n_ctx, params.port = rows, 512 * rows, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = cores
        return xllamacpp.Server(params)

    servers: dict[int, xllamacpp.Server] = {}

    def draw(prompt: list[int], rows: int, tokens: int) -> int:
        server = servers.setdefault(rows, servers.get(rows) or serve(rows))
        asked = {
            "prompt": prompt,
            "n_predict": tokens,
            "ignore_eos": True,
            "cache_prompt": False,
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "min_p": 0.0,
            "repeat_penalty": 1.0,
        }

        def one(_: int) -> int:
            said = server.handle_completions(asked)
            said = json.loads(said) if isinstance(said, str | bytes) else said
            usage = said.get("usage", {})
            return int(usage.get("completion_tokens", said.get("tokens_predicted", 0)))

        with concurrent.futures.ThreadPoolExecutor(rows) as pool:
            return sum(pool.map(one, range(rows)))

    return f"xllamacpp {importlib.metadata.version('xllamacpp')} (llama.cpp), F32", draw


def ctranslate2(folder: Path, cores: int) -> tuple[str, Draw]:
    """CTranslate2 in float32, converted from the same folder as transformers reads."""
    import ctranslate2

    target = folder / "ct2"
    if not target.exists():
        ctranslate2.converters.TransformersConverter(str(folder / "hf")).convert(str(target))
    generator = ctranslate2.Generator(
        str(target), device="cpu", compute_type="float32", inter_threads=1, intra_threads=cores
    )
    names = json.loads((target / "vocabulary.json").read_text())

    def draw(prompt: list[int], rows: int, tokens: int) -> int:
        found = generator.generate_batch(
            [[names[index] for index in prompt]] * rows,
            max_length=tokens,
            min_length=tokens,
            sampling_topk=0,
            include_prompt_in_result=False,
            max_batch_size=rows,
        )
        return sum(len(each.sequences_ids[0]) for each in found)

    return f"CTranslate2 {ctranslate2.__version__}, float32", draw


PEERS = {"transformers": transformers, "llama.cpp": llama_cpp, "ctranslate2": ctranslate2}


def main() -> None:
    name, folder, cores = sys.argv[1:]

    def start() -> tuple[str, Answer]:
        version, draw = PEERS[name](Path(folder), int(cores))
        return version, lambda asked: {
            "tokens": draw(asked["prompt"], asked["rows"], asked["tokens"])
        }

    serve(start)


def serve(start: Callable[[], tuple[str, Answer]]) -> None:
    """Starts a peer, and answers lines with what it returns and the time that it took."""
    out, sys.stdout = sys.stdout, sys.stderr  # what the peers print is none of the answers
    try:
        version, answer = start()
    except Exception as error:  # whatever a peer raises where it cannot be used
        print(json.dumps({"absent": f"{type(error).__name__}: {error}"}), file=out, flush=True)
        return
    print(json.dumps({"ready": version}), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        began, worked = time.perf_counter(), time.process_time()
        found = answer(asked)
        took = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - worked}
        print(json.dumps({**took, **found}), file=out, flush=True)


if __name__ == "__main__":
    main()
