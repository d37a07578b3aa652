"""One training step, beside the same model in plain Flax and in PyTorch, in the same rounds.

python -m benchmarks.step [--vocab 8192 1024] [--torch-compile] [--no-torch] ...
"""

import argparse
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import flax_peer
from benchmarks.measure import CLOCKS, REPEATS, in_rounds, report
from calibtrain.config import ModelConfig, OptimizerConfig
from calibtrain.data.batches.stream import Batch
from calibtrain.models import build, compute_dtype
from calibtrain.models.size import training_flops
from calibtrain.readout import FIELDS
from calibtrain.training.coupled import default_micro_batches
from calibtrain.training.objective import Objective
from calibtrain.training.optimizer import make_optimizer
from calibtrain.training.shared_gradient import make_gradient
from calibtrain.training.state import TrainState, initial_state
from calibtrain.training.step import make_train_step

PEER, COMPILED_PEER = "torch eager", "torch compiled"


def example(rng: np.random.Generator, vocab: int, rows: int, context: int) -> Batch:
    """A batch of random tokens, on the device: a document a row."""
    tokens = rng.integers(0, vocab, (rows, context + 1)).astype(np.int32)
    segments = np.zeros((rows, context), np.int32)
    weights = np.ones((rows, context), np.float32)
    batch = Batch(tokens[:, :-1], tokens[:, 1:], segments, weights)
    return jax.tree.map(jnp.asarray, batch)


def pieces_of(batch: Batch, objective: Objective | None = None) -> int:
    """Micro-batches that a run takes such a batch in here."""
    platform = jax.default_backend()
    return default_micro_batches(*batch.labels.shape, platform, objective or Objective())


def lower(
    config: ModelConfig,
    vocab: int,
    batch: Batch,
    fields: tuple[str, ...] = (),
    objective: Objective | None = None,
    pieces: int | None = None,
) -> tuple[Any, Callable[[], TrainState]]:
    """Our step for such batches, ready to be compiled; and what makes its first state.

    Pieces are micro-batches: as many as a run would take, if none are given.
    """
    network = build(config, vocab)
    optimizer = make_optimizer(OptimizerConfig(), 1000)

    def initial(seed: Any = 0) -> TrainState:
        return initial_state(network, optimizer, seed, objective)

    pieces = pieces or pieces_of(batch, objective)
    gradient = make_gradient(network, objective or Objective(), fields=fields, accumulate=pieces)
    step = make_train_step(network, optimizer, objective=objective, gradient=gradient)
    jitted = jax.jit(step, donate_argnums=0)
    # a constant seed would let the compiler draw the parameters: minutes, for a GPU
    return jitted.lower(jax.eval_shape(initial), batch), lambda: jax.jit(initial)(0)


def make(
    config: ModelConfig,
    vocab: int,
    batch: Batch,
    fields: tuple[str, ...] = (),
    objective: Objective | None = None,
    pieces: int | None = None,
) -> tuple[Callable[[], jax.Array], int]:
    """A function that takes one of our steps, and the bytes of its temporaries."""
    lowered, initial = lower(config, vocab, batch, fields, objective, pieces)
    compiled = lowered.compile()
    held = [initial()]

    def run() -> jax.Array:
        held[0], metrics = compiled(held[0], batch)
        return metrics["loss"]

    return run, compiled.memory_analysis().temp_size_in_bytes


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Arguments for the model and batch of a step: a small one on a CPU, GPT-2 small elsewhere."""
    on_cpu = jax.default_backend() == "cpu"
    parser.add_argument("--width", type=int, default=256 if on_cpu else 768)
    parser.add_argument("--depth", type=int, default=6 if on_cpu else 12)
    parser.add_argument("--heads", type=int, default=4 if on_cpu else 12)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--context", type=int, default=256 if on_cpu else 1024)
    steps = "steps of a turn, at whose end the device is waited for"
    parser.add_argument("--steps", type=int, default=1 if on_cpu else 10, help=steps)


def compare(given: argparse.Namespace, config: ModelConfig, vocab: int) -> list[dict[str, Any]]:
    """Measures our step beside its peers, and returns the lines that are printed.

    Args:
        given: what `add_arguments` adds.
        config: the model.
        vocab: vocabulary entries.
    """
    dtype = compute_dtype(config)
    batch = example(np.random.default_rng(0), vocab, given.rows, given.context)
    tokens = np.concatenate([batch.tokens, batch.labels[:, -1:]], axis=1)
    runs: dict[str, Callable[[], Any]] = {}
    temporary: dict[str, int | None] = {}
    for name, fields in (("calibtrain", ()), ("calibtrain, all statistics", FIELDS)):
        runs[name], temporary[name] = make(config, vocab, batch, fields)
    pieces = pieces_of(batch)
    if pieces > 1:
        name = "calibtrain, the batch whole"
        runs[name], temporary[name] = make(config, vocab, batch, pieces=1)
    if not given.no_flax:
        name = "flax, whole logits"
        runs[name], temporary[name] = flax_peer.make(config, vocab, tokens, dtype)
    if not given.no_torch and importlib.util.find_spec("torch"):
        from benchmarks import torch_peer

        half = dtype == jnp.bfloat16
        peers = [(PEER, False, 1)]
        if pieces > 1:
            peers.append((f"{PEER}, in pieces", False, pieces))
        if given.torch_compile:
            peers.append((COMPILED_PEER, True, 1))
        for name, compiled, cut in peers:
            runs[name] = torch_peer.make(
                config,
                vocab,
                tokens,
                compiled=compiled,
                bfloat16=half,
                pieces=cut,
            )
    seconds = in_rounds(runs, given.repeats, given.clock, steps=given.steps)
    facts: dict[str, Any] = {
        "width": given.width,
        "depth": given.depth,
        "heads": given.heads,
        "rows": given.rows,
        "context": given.context,
        "vocab": vocab,
        "compute": str(dtype),
        "clock": given.clock,
        "steps": given.steps,
    }
    slots = given.rows * given.context
    return [
        report(
            "step",
            name,
            times,
            tokens=slots,
            flops=training_flops(config, vocab, given.context) * slots,
            peer=seconds.get(PEER),
            peer_name=PEER if PEER in seconds else None,
            temporary_bytes=temporary.get(name),
            **facts,
        )
        for name, times in seconds.items()
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of a comparison of steps."""
    on_cpu = jax.default_backend() == "cpu"
    add_shape(parser)
    parser.add_argument("--vocab", type=int, nargs="+", default=[8192, 1024] if on_cpu else [32768])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--no-flax", action="store_true")
    parser.add_argument("--torch-compile", action="store_true", help="also PyTorch, compiled")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    add_arguments(parser)
    given = parser.parse_args()
    config = ModelConfig(width=given.width, depth=given.depth, heads=given.heads)
    for vocab in given.vocab:
        compare(given, config, vocab)


if __name__ == "__main__":
    main()
