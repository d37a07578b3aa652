"""A step with each loss beside one with cross entropy, in the same rounds.

A loss over a batch takes it whole; a CPU takes others in pieces, which is faster. So such a loss is
also put beside cross entropy that takes the batch whole.

python -m benchmarks.losses [--vocab 8192] [--clock cpu] ...
"""

import argparse
import statistics
from collections.abc import Callable

import numpy as np

from benchmarks.measure import CLOCKS, REPEATS, in_rounds, report
from benchmarks.step import add_shape, example, make
from calibtrain.config import Config, ModelConfig, validate
from calibtrain.training.objective import Objective, make_objective

PLAIN = {"kind": "cross_entropy"}
WHOLE = "cross_entropy, the batch whole"
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


def ratio(times: list[float], peer: list[float]) -> float:
    """Median over the rounds."""
    return round(statistics.median(own / other for own, other in zip(times, peer, strict=True)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses", description=__doc__)
    add_shape(parser)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--losses", nargs="+", default=[*TOKEN_LOSSES, *BATCH_LOSSES])
    given = parser.parse_args()
    config = ModelConfig(width=given.width, depth=given.depth, heads=given.heads)
    batch = example(np.random.default_rng(0), given.vocab, given.rows, given.context)
    runs: dict[str, Callable[[], float]] = {}
    temporary: dict[str, int] = {}
    for kind in ("cross_entropy", *given.losses):
        runs[kind], temporary[kind] = make(
            config,
            given.vocab,
            batch,
            objective=objective(kind, given.vocab),
            steps=given.steps,
        )
    plain = objective("cross_entropy", given.vocab)
    runs[WHOLE], temporary[WHOLE] = make(
        config, given.vocab, batch, objective=plain, pieces=1, steps=given.steps
    )
    seconds = in_rounds(runs, given.repeats, given.clock, steps=given.steps)
    for kind, times in seconds.items():
        report(
            "losses",
            kind,
            times,
            tokens=given.rows * given.context,
            times_cross_entropy=ratio(times, seconds["cross_entropy"]),
            times_cross_entropy_whole=ratio(times, seconds[WHOLE])
            if kind in BATCH_LOSSES
            else None,
            temporary_bytes=temporary[kind],
            width=given.width,
            depth=given.depth,
            rows=given.rows,
            context=given.context,
            vocab=given.vocab,
            clock=given.clock,
        )


if __name__ == "__main__":
    main()
