"""genlm-bytes for `benchmarks.ensembles`, in an environment of its own (`pip install genlm-bytes`).

    PYTHON benchmarks/ensembles_peer.py FOLDER BEAM RATIO

FOLDER holds the model as transformers reads it. After a line that says that it is ready, it answers
lines of JSON `{"prompt": TEXT, "bytes": N}`: the text that is greedy in its bytes, and the seconds
from its first byte to its last.
"""

import asyncio
import json
import sys
import time
from importlib.metadata import version

import numpy as np
import torch
from genlm.backend.llm import AsyncTransformer
from genlm.bytes import BeamParams, ByteBeamState


async def main() -> None:
    """Answers until its input ends."""
    folder, width, ratio = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    torch.set_num_threads(2)
    # queries wait for others for at most this long; alone, they need not
    options = {"hf_opts": {"dtype": torch.float32}, "timeout": 0.001}
    model = AsyncTransformer.from_name(folder, **options)
    ends = [bytes(model.byte_vocab[model.tokenizer.eos_token_id].byte_string)]
    params = BeamParams(K=width, prune_threshold=ratio, eos_byte_strings=ends, heal=False)
    first = await ByteBeamState.initial(model, params)
    name = f"genlm-bytes {version('genlm-bytes')}, transformers {version('transformers')}"
    print(json.dumps({"ready": f"{name}, torch {torch.__version__}"}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        model.clear_cache()
        beam = await first.prefill(asked["prompt"].encode())
        text, times = b"", []
        while len(text) < asked["bytes"]:
            ps = (await beam.logp_next()).ps
            byte = int(np.argmax(ps[:256]))
            text += bytes([byte])
            times.append(time.perf_counter())
            beam = (await (beam << byte)).prune()
        seconds = times[-1] - times[0]
        answer = {"text": text.decode(errors="replace"), "seconds": seconds}
        print(json.dumps(answer), flush=True)
    await first.cleanup()


asyncio.run(main())
