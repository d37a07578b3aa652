"""Layers written out or scanned, activations kept or recomputed: compilation, a step, memory.

python -m benchmarks.layers [--depth 6 24] [--width 128] [--remat none full] ...
"""

import argparse
import time
from typing import Any

import jax
import numpy as np

from benchmarks.measure import REPEATS, in_rounds, report
from calibtrain.config import ModelConfig, OptimizerConfig
from calibtrain.data.batches.stream import Batch
from calibtrain.models import build
from calibtrain.training.optimizer import make_optimizer
from calibtrain.training.state import initial_state
from calibtrain.training.step import make_train_step

PEER = "unrolled, none"


class Step:
    """One way to compute a step: lowered once, compiled and run as often as asked."""

    def __init__(self, config: ModelConfig, vocab: int, batch: Batch):
        network, optimizer = build(config, vocab), make_optimizer(OptimizerConfig(), 1000)
        self.state = jax.jit(lambda: initial_state(network, optimizer, 0))()
        self.batch = batch
        self.step = make_train_step(network, optimizer)
        self.compiled: Any = None

    def compile(self) -> None:
        """Trace and compile anew."""
        jax.clear_caches()
        self.compiled = jax.jit(self.step).lower(self.state, self.batch).compile()

    def run(self) -> None:
        """A step from the same state."""
        jax.block_until_ready(self.compiled(self.state, self.batch))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=__doc__)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--depth", type=int, nargs="+", default=[6, 24])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--vocab", type=int, default=1024)
    parser.add_argument("--remat", nargs="+", default=["none", "dots", "full"])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--compilations", type=int, default=3)
    given = parser.parse_args()
    shape = (given.rows, given.context)
    tokens = np.random.default_rng(0).integers(0, given.vocab, shape).astype(np.int32)
    batch = Batch(tokens, tokens, np.zeros(shape, np.int32), np.ones(shape, np.float32))
    batch = jax.tree.map(jax.numpy.asarray, batch)
    for depth in given.depth:
        base = ModelConfig(width=given.width, depth=depth, heads=max(1, given.width // 32))
        steps = {
            f"{way}, {remat}": Step(
                base.model_copy(update={"layers": way, "remat": remat}), given.vocab, batch
            )
            for remat in given.remat
            for way in ("unrolled", "scanned")
        }
        facts = {"width": given.width, "depth": depth, "rows": given.rows}
        facts |= {"context": given.context, "vocab": given.vocab}
        compile_times: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(given.compilations):
            for name, step in steps.items():
                began = time.perf_counter()
                step.compile()
                compile_times[name].append(time.perf_counter() - began)
        times = in_rounds({name: step.run for name, step in steps.items()}, given.repeats)
        for name, step in steps.items():
            peer: dict[str, Any] = {"peer_name": PEER if PEER in steps else None}
            report(
                "layers: compilation",
                name,
                compile_times[name],
                peer=compile_times.get(PEER),
                **peer,
                **facts,
            )
            memory = step.compiled.memory_analysis()
            report(
                "layers: step",
                name,
                times[name],
                tokens=tokens.size,
                peer=times.get(PEER),
                temporary_bytes=memory.temp_size_in_bytes,
                **peer,
                **facts,
            )


if __name__ == "__main__":
    main()
