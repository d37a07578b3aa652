"""Seconds until a step can run, against depth: traced and lowered, compiled, found in the cache.

python -m benchmarks.compile [--depth 1 2 4 8 16]
"""

import argparse
import tempfile
import time
from typing import Any

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from benchmarks.measure import report
from benchmarks.step import example, lower
from calibtrain.config import ModelConfig

REPEATS = 5


def once(config: ModelConfig, vocab: int, batch: Any) -> dict[str, float]:
    """Seconds of each stage, from nothing, with a persistent cache that is empty at first."""
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        compilation_cache.reset_cache()
        for found, compiled in (("", "compiled"), (", again", "from the cache")):
            jax.clear_caches()  # of this process; the persistent one stays
            began = time.perf_counter()
            lowered = lower(config, vocab, batch)[0]
            seconds["traced and lowered" + found] = time.perf_counter() - began
            began = time.perf_counter()
            lowered.compile()
            seconds[compiled] = time.perf_counter() - began
    del seconds["traced and lowered, again"]
    return seconds


def main() -> None:
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compile", description=__doc__)
    parser.add_argument("--depth", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--width", type=int, default=256 if on_cpu else 768)
    parser.add_argument("--heads", type=int, default=4 if on_cpu else 12)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--context", type=int, default=256 if on_cpu else 1024)
    parser.add_argument("--vocab", type=int, default=8192 if on_cpu else 32768)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    given = parser.parse_args()
    # Everything is kept, however quickly it was compiled.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    batch = example(np.random.default_rng(0), given.vocab, given.rows, given.context)
    configs = {
        depth: ModelConfig(width=given.width, depth=depth, heads=given.heads)
        for depth in given.depth
    }
    once(configs[given.depth[0]], given.vocab, batch)  # what a process does once
    rounds = [
        {depth: once(config, given.vocab, batch) for depth, config in configs.items()}
        for _ in range(given.repeats)
    ]
    for depth in given.depth:
        for name in rounds[0][depth]:
            seconds = [found[depth][name] for found in rounds]
            facts = {
                key: vars(given)[key] for key in ("width", "heads", "rows", "context", "vocab")
            }
            report("compile", name, seconds, depth=depth, **facts)


if __name__ == "__main__":
    main()
