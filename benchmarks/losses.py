"""A step with each loss beside one with cross entropy, in the same rounds.

python -m benchmarks.losses [--vocab 8192] [--clock cpu] ...

--alone times the readout of each token loss instead, beside a whole step of cross entropy: what a
loss costs more than cross entropy lies there, and the rest of a step only adds its noise.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.measure import CLOCKS, REPEATS, in_rounds, report
from benchmarks.step import add_shape, example, make
from calibtrain.config import Config, ModelConfig, validate
from calibtrain.data.batches.stream import Batch
from calibtrain.models import compute_dtype
from calibtrain.readout import additive_loss
from calibtrain.training.objective import Objective
from calibtrain.training.step import FIELDS as STEP_FIELDS
from calibtrain.training.terms import make_objective

PLAIN = {"kind": "cross_entropy"}
STEP = "a step of cross entropy"
TOKEN_LOSSES = (
    "label_smoothing",
    "focal",
    "flsd_53",
    "dual_focal",
    "entropy_penalty",
    "brier",
    "margin_smoothing",
    "z_loss",
    "selective_smoothing",
    "poscal",
)
BATCH_LOSSES = ("mmce", "soft_binned_ece", "dece", "mdca", "dca", "avuc")


def objective(kind: str, vocab: int) -> Objective:
    """A loss as its recipe has it: one over a batch beside cross entropy."""
    terms = [PLAIN, {"kind": kind}] if kind in BATCH_LOSSES else [{"kind": kind}]
    loss = validate(Config, {"loss": terms}).loss
    return make_objective(loss, vocab_size=vocab, steps_per_epoch=100)


def readout_alone(
    objective: Objective, vocab: int, width: int, batch: Batch, dtype: Any
) -> Callable[[], jax.Array]:
    """A function that takes the loss and its gradient by hidden states and unembedding."""
    bound = objective.bound(objective.initial_state())
    fields = tuple(dict.fromkeys((*STEP_FIELDS, *bound.fields)))

    def total(hidden: jax.Array, unembedding: jax.Array) -> jax.Array:
        return additive_loss(
            hidden,
            unembedding,
            batch.labels,
            batch.weights,
            lambda stats: bound.per_token(stats, jnp.zeros((), jnp.int32)),
            fields=fields,
            functionals=bound.functionals,
        )[0]

    keys = jax.random.split(jax.random.key(0))
    hidden = jax.random.normal(keys[0], (*batch.labels.shape, width)).astype(dtype)
    unembedding = jax.random.normal(keys[1], (width, vocab)) * width**-0.5
    both = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))
    return lambda: both(hidden, unembedding)[0]


def ratio(times: list[float], peer: list[float]) -> float:
    """Median over the rounds."""
    return round(statistics.median(own / other for own, other in zip(times, peer, strict=True)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses", description=__doc__)
    add_shape(parser)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--losses", nargs="+", choices=[*TOKEN_LOSSES, *BATCH_LOSSES])
    parser.add_argument("--alone", action="store_true", help="the readout of token losses alone")
    given = parser.parse_args()
    kinds = given.losses or (TOKEN_LOSSES if given.alone else (*TOKEN_LOSSES, *BATCH_LOSSES))
    if given.alone and (coupled := set(kinds) & set(BATCH_LOSSES)):
        parser.error(f"--alone is for token losses, not for {', '.join(sorted(coupled))}")
    config = ModelConfig(width=given.width, depth=given.depth, heads=given.heads)
    batch = example(np.random.default_rng(0), given.vocab, given.rows, given.context)
    runs: dict[str, Callable[[], jax.Array]] = {}
    temporary: dict[str, int] = {}
    facts = {
        "tokens": given.rows * given.context,
        "width": given.width,
        "rows": given.rows,
        "context": given.context,
        "vocab": given.vocab,
        "clock": given.clock,
    }
    if given.alone:
        runs[STEP], _ = make(config, given.vocab, batch)
        for kind in ("cross_entropy", *kinds):
            runs[kind] = readout_alone(
                objective(kind, given.vocab),
                given.vocab,
                given.width,
                batch,
                compute_dtype(config),
            )
        seconds = in_rounds(runs, given.repeats, given.clock)
        plain = seconds["cross_entropy"]
        for kind, times in seconds.items():
            more = [own - other for own, other in zip(times, plain, strict=True)]
            share = statistics.median(more) / statistics.median(seconds[STEP])
            share_of_step = None if kind == STEP else round(share, 4)
            report("losses --alone", kind, times, more_of_a_step=share_of_step, **facts)
        return
    for kind in ("cross_entropy", *kinds):
        runs[kind], temporary[kind] = make(
            config,
            given.vocab,
            batch,
            objective=objective(kind, given.vocab),
        )
    seconds = in_rounds(runs, given.repeats, given.clock, steps=given.steps)
    for kind, times in seconds.items():
        report(
            "losses",
            kind,
            times,
            times_cross_entropy=ratio(times, seconds["cross_entropy"]),
            temporary_bytes=temporary[kind],
            depth=given.depth,
            **facts,
        )


if __name__ == "__main__":
    main()
