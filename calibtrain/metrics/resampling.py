"""Intervals of errors, which cannot be below 0.

An error is the sum, or the largest, of absolute gaps. Noise can only raise it, and a resample,
which has the noise of the data and its own, is raised twice. So percentiles of resamples never
cover the 0 of a calibrated model, and reflecting them about the estimate rarely does. `NoisyGaps`
inverts a test instead: the documents give the noise of the gaps, and it is added to gaps that are
scaled to what could have led to the estimate.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable
from functools import cached_property

import numpy as np
from jaxtyping import Float

from calibtrain.metrics.intervals import (
    AT_ONCE,
    Interval,
    expansion,
    interval_of,
    jackknife_error,
)

GapError = Callable[[Float[np.ndarray, "batch gaps"]], Float[np.ndarray, " batch"]]
"""Gaps -> the error of each row, >= 0. It is homogeneous: twice the gaps give twice the error."""


def absolute_sum(gaps: Float[np.ndarray, "batch gaps"]) -> Float[np.ndarray, " batch"]:
    """Returns the ECE, given the gaps of bins as shares of all the weight."""
    return np.abs(gaps).sum(-1)


def largest(gaps: Float[np.ndarray, "batch gaps"]) -> Float[np.ndarray, " batch"]:
    """Returns the maximum error, given gaps of bins; the KS error, given cumulative gaps."""
    return np.abs(gaps).max(-1)


@dataclasses.dataclass(frozen=True)
class NoisyGaps:
    """Gaps of a model, their noise, and an error that is a function of them.

    Attributes:
        gaps: numbers, each linear in (confidence - correctness), that are 0 for a calibrated model.
        noise: what each draw adds to the gaps.
        error: from gaps to the error.
        expansion: factor by which the spread of errors is too small (`intervals.expansion`).
        left_out: the errors without each document in turn.
    """

    gaps: Float[np.ndarray, " gaps"]
    noise: Float[np.ndarray, "draws gaps"]
    error: GapError
    expansion: float
    left_out: Float[np.ndarray, " documents"]

    @classmethod
    def of(
        cls,
        tables: Float[np.ndarray, "documents ..."],
        read: Callable[[Float[np.ndarray, "batch ..."]], Float[np.ndarray, "batch gaps"]],
        error: GapError,
        *,
        draws: int,
        level: float = 0.95,
        seed: int = 0,
    ) -> "NoisyGaps":
        """Returns the gaps with normal noise that has the jackknife's covariance.

        The jackknife leaves out one document at a time. Its noise is continuous, where resamples of
        few events take few values, and it is not too small where few documents hold most events.

        Args:
            tables: what each document adds; index 0 of the last axis is the number of events.
            read: from sums over documents to gaps.
            error: from gaps to the error.
            draws: number of draws of the noise.
            level: level of confidence of the expansion.
            seed: seed of the draws.
        """
        count, whole = len(tables), tables.sum(0)
        left_out = read(whole - tables)
        deviations = (left_out - left_out.mean(0)) * math.sqrt((count - 1) / count)
        noise = np.zeros((draws, deviations.shape[1]))
        rng, rows = np.random.default_rng(seed), max(1, AT_ONCE // draws)
        for some in (deviations[i : i + rows] for i in range(0, count, rows)):
            noise += rng.standard_normal((draws, len(some))) @ some
        return cls(read(whole[None])[0], noise, error, expansion(tables, level), error(left_out))

    @cached_property
    def estimate(self) -> float:
        """The error of the gaps themselves."""
        return float(self.error(self.gaps[None])[0])

    def errors(self, scale: float) -> Float[np.ndarray, " draws"]:
        """Returns the errors that a model with gaps scaled like this would show."""
        errors = self.error(scale * self.gaps + self.noise)
        mean = errors.mean()
        return mean + self.expansion * (errors - mean)

    def share_above(self, scale: float) -> float:
        """Returns the share of these errors at or above the estimate; it rises with the scale."""
        return float((self.errors(scale) >= self.estimate * (1 - 1e-12)).mean())

    def scales(self, level: float) -> tuple[float, float]:
        """Returns the least and the largest scale that could have led to the estimate.

        A scale is kept if the estimate lies between the tails of the errors at that scale. At scale
        0 the upper tail holds all of 1 - level, since no error is too small for a calibrated model;
        once gaps are larger than the noise it holds half (cf. Hansen, 1999).
        """
        from_noise = float(self.errors(0.0).mean())

        def lower_tail(scale: float) -> float:
            grown = scale * self.estimate / from_noise if from_noise > 0 else 1.0
            return (1 - level) / 2 * min(1.0, grown)

        return (
            first_scale(lambda s: self.share_above(s) >= 1 - level - lower_tail(s)),
            first_scale(lambda s: self.share_above(s) > 1 - lower_tail(s)),
        )

    def interval(self, level: float = 0.95) -> Interval:
        """Returns the interval of the error, which begins at 0 for a calibrated model."""
        low, high = (scale * self.estimate for scale in self.scales(level))
        high = max(high, self.unbiased_upper(level))
        return interval_of(self.estimate, low, high, level, "inverted test", self.errors(1.0))

    def unbiased_upper(self, level: float) -> float:
        """Returns the upper end for an estimate that noise does not raise.

        Noise adds at least 0 to an error, since errors are convex, and where it makes up much of
        the gaps found, the test takes it to have added more than it did.
        """
        errors = self.errors(1.0)
        return self.estimate + float(errors.mean() - np.quantile(errors, (1 - level) / 2))

    def largest_upper(self, level: float) -> float:
        """Returns the largest of upper bounds of the size of each gap, which hold one by one."""
        tails = np.quantile(self.noise, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return float(np.abs(self.gaps - self.expansion * tails).max())


def within_1(interval: Interval) -> Interval:
    """Returns the interval with its ends clipped to 1, which few documents can exceed."""
    return within(interval, -math.inf, 1.0)


def within(interval: Interval, least: float, most: float) -> Interval:
    """Returns the interval with its ends clipped to the range of its figure."""
    lower, upper = (min(max(end, least), most) for end in (interval.lower, interval.upper))
    return dataclasses.replace(interval, lower=lower, upper=upper)


def scaled_difference(first: NoisyGaps, second: NoisyGaps, level: float) -> Interval:
    """Returns the interval of the difference of two models' errors, whose noise is of one seed.

    It holds for all pairs of scales that leave each model's estimate between its 10 % tails, and
    Student's interval of the difference as well, which is the right one where gaps are far larger
    than their noise.
    """
    misses = np.stack(
        [one - other for one, other in itertools.product(_misses(first), _misses(second))]
    )
    estimate, tail = first.estimate - second.estimate, (1 - level) / 2
    low, high = np.quantile(misses, [tail, 1 - tail], axis=1)
    reach = student_reach(first.left_out - second.left_out, first.expansion, level)
    lower = min(estimate - high.max(), estimate - reach)
    upper = max(estimate - low.min(), estimate + reach)
    drawn = first.errors(1.0) - second.errors(1.0)
    return interval_of(estimate, lower, upper, level, "scaled gaps", drawn)


def student_reach(
    left_out: Float[np.ndarray, " documents"], expansion: float, level: float
) -> float:
    """Returns how far Student's interval reaches from a figure, given it without each document.

    The jackknife's standard error, times the normal quantile, times how much further Student's
    reaches (`intervals.expansion`).
    """
    normal = statistics.NormalDist().inv_cdf((1 + level) / 2)
    return normal * expansion * jackknife_error(left_out)


def _misses(model: NoisyGaps) -> list[Float[np.ndarray, " draws"]]:
    """Returns by how much the estimate lies above the truth, at the ends of plausible scales.

    Where the model may be calibrated, its gaps may have either sign.
    """
    low, high = (first_scale(lambda s, t=t: model.share_above(s) >= t) for t in (0.1, 0.9))  # type: ignore[misc]
    scales = (low, high) if low > 0 else (low, high, -high)
    return [model.errors(scale) - abs(scale) * model.estimate for scale in scales]


def first_scale(reached: Callable[[float], bool]) -> float:
    """Returns the least scale at which `reached` is true, to a relative 1e-6; 0 if it is at 0."""
    if reached(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while not reached(high) and high < 2**20:
        low, high = high, 2 * high
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high
