"""Algorithm 2's coefficient: fitted to real text by minimum cross entropy, with its interval.

P_a(w | past) is proportional to P(w | past) exp(-a H(next | past, w)), among k candidates. With
H_w = H(next | past, w), the mean of -log P_a(true) over positions has the derivative
E[H_true] - E[sum_w P_a(w) H_w] by a, and the second derivative E[Var_a(H)] >= 0: the problem is
convex, and at its solution the look-ahead entropy that the model expects is that of the true words.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.metrics.intervals import Interval
from calibtrain.metrics.jackknife import student_interval


@dataclasses.dataclass(frozen=True)
class Lookahead:
    """Candidates at positions of a text, and the entropy of the step after each.

    Attributes:
        log_probability: of each candidate, in nats; normalised among the candidates.
        next_entropy: of the step after it, in nats.
        true: index of the candidate that the text says; -1 where it is none of them.
        documents: the document of each position, in [0, number of documents).
    """

    log_probability: Float[np.ndarray, "positions candidates"]
    next_entropy: Float[np.ndarray, "positions candidates"]
    true: Int[np.ndarray, " positions"]
    documents: Int[np.ndarray, " positions"]

    @property
    def covered(self) -> Bool[np.ndarray, " positions"]:
        """Where the text says a candidate; only such positions can be scored."""
        return self.true >= 0


@dataclasses.dataclass(frozen=True)
class FittedLookahead:
    """The coefficient of the lowest cross entropy, and what it changes.

    Attributes:
        alpha: the coefficient, with its interval over documents.
        cross_entropy_before: at a = 0, in nats per token, among the candidates.
        cross_entropy: at alpha.
        gain: the first less the second, with its interval; never below 0.
        gap_before: the look-ahead entropy of the true words less the expected one, at a = 0, with
            its interval: 0 for a calibrated model.
        gap: the same at alpha: 0 up to rounding, as the solution is stationary.
        positions: that were read.
        covered: share of them at which the text says a candidate.
    """

    alpha: Interval
    cross_entropy_before: float
    cross_entropy: float
    gain: Interval
    gap_before: Interval
    gap: float
    positions: int
    covered: float


def tilted(found: Lookahead, alpha: float) -> Float[np.ndarray, "positions candidates"]:
    """Returns the log-probabilities of P_a, in nats."""
    scores = found.log_probability - alpha * np.where(
        np.isfinite(found.log_probability), found.next_entropy, 0.0
    )
    top = scores.max(axis=-1, keepdims=True)
    return scores - top - np.log(np.exp(scores - top).sum(axis=-1, keepdims=True))


def entropies(
    log_probability: Float[np.ndarray, "positions some"],
) -> Float[np.ndarray, " positions"]:
    """Returns the entropy of each row, in nats."""
    p = np.exp(log_probability)
    return -np.sum(np.where(p > 0, p * np.where(p > 0, log_probability, 0.0), 0.0), axis=-1)


def cross_entropies(found: Lookahead, alpha: float) -> Float[np.ndarray, " covered"]:
    """Returns -log P_a of the true words at the covered positions, in nats."""
    own = np.flatnonzero(found.covered)
    return -tilted(found, alpha)[own, found.true[own]]


def fit_lookahead(found: Lookahead, *, level: float = 0.95) -> FittedLookahead:
    """Returns the coefficient of the lowest cross entropy over the covered positions.

    Args:
        found: candidates at positions of real text.
        level: of the intervals.

    Raises:
        ValueError: for fewer than two documents; where the entropies of the candidates do not
            differ, so that every coefficient gives the same; and where no finite one is best.
    """
    own = np.flatnonzero(found.covered)
    if len(np.unique(found.documents[own])) < 2:
        raise ValueError("positions: lie in fewer than two documents")
    rows = np.arange(len(own))
    some = Lookahead(
        found.log_probability[own], found.next_entropy[own], found.true[own], found.documents[own]
    )

    def moments(alpha: float) -> tuple[Any, Any, Any]:
        """-log P_a(true), its derivative and its second derivative, for each position."""
        x = tilted(some, alpha)
        p = np.exp(x)
        h = np.where(p > 0, some.next_entropy, 0.0)
        mean = (p * h).sum(-1)
        variance = (p * (h - mean[:, None]) ** 2).sum(-1)
        return -x[rows, some.true], some.next_entropy[rows, some.true] - mean, variance

    before, gap_before, spread = moments(0.0)
    if spread.mean() < 1e-12:
        raise ValueError("next_entropy: does not differ between candidates")
    alpha = _root(lambda a: tuple(x.mean() for x in moments(a)))
    after, gap, spread = moments(alpha)
    sums = _sums(some.documents, [gap, spread, before - after, gap_before])

    def mean(column: int) -> Any:
        return lambda s: s[:, column] / s[:, 0]

    return FittedLookahead(
        # a Newton step from the solution: how it moves when documents are left out
        alpha=student_interval(sums, lambda s: alpha - s[:, 1] / s[:, 2], level=level),
        cross_entropy_before=float(before.mean()),
        cross_entropy=float(after.mean()),
        gain=student_interval(sums, mean(3), level=level),
        gap_before=student_interval(sums, mean(4), level=level),
        gap=float(gap.mean()),
        positions=len(found.true),
        covered=len(own) / len(found.true),
    )


def _root(means: Callable[[float], Sequence[float]]) -> float:
    """Returns where the derivative is 0: Newton steps inside a bracket that only shrinks."""
    low, high = -1.0, 1.0
    while means(low)[1] > 0 and low > -1e3:
        low *= 2
    while means(high)[1] < 0 and high < 1e3:
        high *= 2
    if means(low)[1] > 0 or means(high)[1] < 0:
        raise ValueError("alpha: no finite coefficient is best on these positions; take more")
    at = 0.0
    for _ in range(200):
        _, slope, curvature = means(at)
        if abs(slope) < 1e-13 or high - low < 1e-13:
            break
        low, high = (at, high) if slope < 0 else (low, at)
        step = at - slope / max(curvature, 1e-300)
        at = step if low < step < high else (low + high) / 2
    return float(at)


def _sums(
    documents: Int[np.ndarray, " positions"], columns: Sequence[Float[np.ndarray, " positions"]]
) -> Float[np.ndarray, "documents columns"]:
    """Returns, for each document that has any, its number of positions and the sums over them."""
    _, place = np.unique(documents, return_inverse=True)
    return np.stack([np.bincount(place, x) for x in (np.ones(len(place)), *columns)], axis=-1)
