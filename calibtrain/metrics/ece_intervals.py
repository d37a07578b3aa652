"""Intervals of the ECE, and of the difference of two.

ECE adds up absolute values, so noise in a bin's gap can only raise it: it is biased upward, and a
resample, with the noise of the data and its own, is biased again. Percentiles of resamples never
cover the 0 of a calibrated model, and reflecting them about the estimate rarely does. Here the
resamples tell only the noise of the gaps, and that is added to gaps that are scaled down to what
could have led to the estimate.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from calibtrain.metrics.intervals import Interval, checked_sums, interval_of, resampled_sums


def calibration_error_interval(
    tables: Float[np.ndarray, "documents bins 3"],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the ECE, from a reliability table a document: an inverted test.

    It holds every ECE that could have led to the estimate (cf. Hansen, 1999): the bins' gaps are
    scaled from 0 (a calibrated model) upwards, noise is added, and a scale is kept if the estimate
    lies between the tails of the ECEs that this makes. At 0 all of 1 - level is in the upper tail,
    since no ECE is too small for a calibrated model; from where the gaps outgrow the noise on, half
    of it. The lower end of a calibrated model is 0, and the estimate may lie above the upper end.

    Args:
        tables: from `document_tables`.
        resamples: number of resamples.
        level: of confidence.
        seed: of the draws.

    Raises:
        ValueError: for fewer than two documents, or what is not finite.
    """
    model = _Model.of(checked_sums(tables, resamples, level), resamples, seed)
    from_noise = float(model.errors(0.0).mean())

    def lower_tail(scale: float) -> float:
        grown = scale * model.estimate / from_noise if from_noise > 0 else 1.0
        return (1 - level) / 2 * min(1.0, grown)

    low = _first(lambda scale: model.share_above(scale) >= 1 - level - lower_tail(scale))
    high = _first(lambda scale: model.share_above(scale) > 1 - lower_tail(scale))
    ends = low * model.estimate, high * model.estimate
    return interval_of(model.estimate, *ends, level, "inverted test", model.errors(1.0))


def calibration_error_difference(
    first: Float[np.ndarray, "documents bins 3"],
    second: Float[np.ndarray, "documents bins 3"],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of ECE(first) - ECE(second), of two models on the same documents, drawn together.

    By how much the difference errs of two models whose gaps are scaled, and noise added, ours errs
    too. That depends on the scales only where gaps are of the size of the noise; the interval holds
    for all pairs of scales that leave each model's estimate between its 10 % tails.

    Args:
        first: from `document_tables`; the other arguments and errors as for
            `calibration_error_interval`.
        second: the same documents, in the same order.
    """
    if len(first) != len(second):
        raise ValueError(f"second: has {len(second)} documents, first {len(first)}")
    models = [
        _Model.of(checked_sums(tables, resamples, level), resamples, seed)
        for tables in (first, second)
    ]
    estimate = models[0].estimate - models[1].estimate
    tail = (1 - level) / 2
    lower, upper = math.inf, -math.inf
    errors = [[m.errors(s) - s * m.estimate for s in m.plausible_scales()] for m in models]
    for one, other in itertools.product(*errors):
        low, high = np.quantile(one - other, [tail, 1 - tail])
        lower, upper = min(lower, estimate - high), max(upper, estimate - low)
    drawn = models[0].errors(1.0) - models[1].errors(1.0)
    return interval_of(estimate, lower, upper, level, "scaled gaps", drawn)


@dataclasses.dataclass(frozen=True)
class _Model:
    """The bins' gaps of a model, and the noise in them."""

    estimate: float
    gaps: Float[np.ndarray, " bins"]
    noise: Float[np.ndarray, "resamples bins"]

    @classmethod
    def of(
        cls, tables: Float[np.ndarray, "documents bins 3"], resamples: int, seed: int
    ) -> "_Model":
        gaps = _gaps(tables.sum(0))
        noise = _gaps(resampled_sums(tables, resamples=resamples, seed=seed)) - gaps
        noise = noise * math.sqrt(len(tables) / (len(tables) - 1))
        return cls(float(np.abs(gaps).sum()), gaps, noise)

    def errors(self, scale: float) -> Float[np.ndarray, " resamples"]:
        """ECEs that a model with gaps so scaled would show."""
        return np.abs(scale * self.gaps + self.noise).sum(-1)

    def share_above(self, scale: float) -> float:
        """The share of them at or above the estimate; it rises with the scale."""
        return float((self.errors(scale) >= self.estimate * (1 - 1e-12)).mean())

    def plausible_scales(self) -> tuple[float, float]:
        """The ends of the scales at which the estimate lies between the 10 % tails."""
        low, high = (_first(lambda s, t=t: self.share_above(s) >= t) for t in (0.1, 0.9))  # type: ignore[misc]
        return low, high


def _gaps(tables: Float[np.ndarray, "*batch bins 3"]) -> Float[np.ndarray, "*batch bins"]:
    """Each bin's part of the signed gap."""
    return (tables[..., 1] - tables[..., 2]) / tables[..., 0].sum(-1, keepdims=True)


def _first(reached: Callable[[float], bool]) -> float:
    """The scale from which on something is reached, to 1e-9 of it; 0 if from the beginning."""
    if reached(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while not reached(high) and high < 2**20:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
