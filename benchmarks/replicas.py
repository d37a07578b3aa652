"""A step of several replicas, one after the other and stacked in one program, beside a step of one.

python -m benchmarks.replicas [--replicas 8] [--width 256] [--depth 4] [--vocab 1024] ...
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import REPEATS, in_rounds, report
from benchmarks.step import example, lower, make
from calibtrain.config import ModelConfig, OptimizerConfig
from calibtrain.data.batches.stream import Batch
from calibtrain.models import build
from calibtrain.models.size import training_flops
from calibtrain.readout.chunks import default_chunk
from calibtrain.training.objective import Objective
from calibtrain.training.optimizer import make_optimizer
from calibtrain.training.state import initial_state
from calibtrain.training.step import TokenGradient, make_train_step


def stacked(
    config: ModelConfig, vocab: int, batches: list[Batch]
) -> tuple[Callable[[], jax.Array], int]:
    """A function that takes a step of all replicas at once, and the bytes of its temporaries."""
    network = build(config, vocab)
    optimizer = make_optimizer(OptimizerConfig(), 1000)
    # as the training engine does: the logits held at once are shared among the replicas
    chunk = max(1, default_chunk(vocab, jax.default_backend()) // len(batches))
    gradient = TokenGradient(network, Objective(), chunk=chunk)
    step = jax.vmap(make_train_step(network, optimizer, gradient=gradient))
    seeds = jnp.arange(len(batches))
    states = jax.jit(jax.vmap(lambda seed: initial_state(network, optimizer, seed)))(seeds)
    batch = jax.tree.map(lambda *parts: jnp.stack(parts), *batches)
    compiled = jax.jit(step, donate_argnums=0).lower(states, batch).compile()
    held = [states]

    def run() -> jax.Array:
        held[0], metrics = compiled(held[0], batch)
        return metrics["loss"].sum()

    return run, compiled.memory_analysis().temp_size_in_bytes


def looped(
    config: ModelConfig, vocab: int, batches: list[Batch]
) -> tuple[Callable[[], jax.Array], int]:
    """The same, one replica after the other."""
    lowered, initial = lower(config, vocab, batches[0])
    compiled = lowered.compile()
    held = [initial() for _ in batches]

    def run() -> jax.Array:
        losses = []
        for index, batch in enumerate(batches):
            held[index], metrics = compiled(held[index], batch)
            losses.append(metrics["loss"])
        return jnp.sum(jnp.stack(losses))

    return run, compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replicas", description=__doc__)
    parser.add_argument("--replicas", type=int, default=4 if on_cpu else 8)
    parser.add_argument("--width", type=int, default=128 if on_cpu else 256)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--context", type=int, default=128 if on_cpu else 256)
    parser.add_argument("--vocab", type=int, nargs="+", default=[1024])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--steps", type=int, default=1 if on_cpu else 10, help="of a turn")
    given = parser.parse_args()
    config = ModelConfig(width=given.width, depth=given.depth, heads=given.heads)
    for vocab in given.vocab:
        rng = np.random.default_rng(0)
        batches = [example(rng, vocab, given.rows, given.context) for _ in range(given.replicas)]
        runs: dict[str, Callable[[], jax.Array]] = {}
        temporary: dict[str, int] = {}
        counts = {"one": 1, "looped": given.replicas, "stacked": given.replicas}
        runs["one"], temporary["one"] = make(config, vocab, batches[0])
        runs["looped"], temporary["looped"] = looped(config, vocab, batches)
        runs["stacked"], temporary["stacked"] = stacked(config, vocab, batches)
        seconds = in_rounds(runs, given.repeats, steps=given.steps)
        one = statistics.median(seconds["one"])
        slots = given.rows * given.context
        facts: dict[str, Any] = {
            key: getattr(given, key) for key in ("width", "depth", "heads", "rows", "context")
        }
        for name, times in seconds.items():
            report(
                "replicas",
                name,
                times,
                tokens=slots * counts[name],
                flops=training_flops(config, vocab, given.context) * slots * counts[name],
                replicas=counts[name],
                times_one=round(statistics.median(times) / one, 3),
                temporary_bytes=temporary[name],
                vocab=vocab,
                **facts,
            )


if __name__ == "__main__":
    main()
