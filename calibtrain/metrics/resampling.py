"""Several figures of the same resamples; and intervals of errors that cannot be below 0.

An error adds up, or takes the largest of, absolute values of gaps: noise can only raise it, and a
resample, with the noise of the data and its own, is raised again. Percentiles of resamples never
cover the 0 of a calibrated model, and reflecting them about the estimate rarely does. `NoisyGaps`
inverts a test instead: the documents tell only the noise of the gaps, and that is added to gaps
that are scaled to what could have led to the estimate.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property

import numpy as np
from jaxtyping import Float

from calibtrain.metrics.intervals import (
    Interval,
    Statistic,
    UndefinedError,
    bootstrap_of,
    checked_sums,
    expansion,
    interval_of,
    resampled_sums,
)

GapError = Callable[[Float[np.ndarray, "batch gaps"]], Float[np.ndarray, " batch"]]
"""Gaps -> the error of each row, >= 0; of gaps twice as large it is twice as large."""


def bootstrap_figures(
    sums: Float[np.ndarray, "documents columns"],
    statistics: Mapping[str, Statistic],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """`bootstrap` (expanded BCa) of several figures of the same resamples, by their names.

    A figure that does not exist for some resample has no interval.

    Raises:
        ValueError: for fewer than two documents, or sums that are not finite.
    """
    sums = checked_sums("sums", sums)
    drawn = resampled_sums(sums, resamples=resamples, seed=seed)
    found = {}
    for name, statistic in statistics.items():
        with suppress(UndefinedError):
            found[name] = bootstrap_of(sums, drawn, statistic, level, "expanded bca")
    return found


def absolute_sum(gaps: Float[np.ndarray, "batch gaps"]) -> Float[np.ndarray, " batch"]:
    """The ECE of the gaps of bins, each as a share of all the weight."""
    return np.abs(gaps).sum(-1)


def largest(gaps: Float[np.ndarray, "batch gaps"]) -> Float[np.ndarray, " batch"]:
    """The maximum error of gaps of bins; the KS error of running gaps."""
    return np.abs(gaps).max(-1)


@dataclasses.dataclass(frozen=True)
class NoisyGaps:
    """Gaps of a model, the noise in them, and an error that they make.

    Attributes:
        gaps: numbers, each linear in (confidence - correctness), that are 0 for a calibrated model.
        noise: of each draw, what is added to them.
        error: of gaps.
        expansion: of the errors' spread: see `intervals.expansion`.
    """

    gaps: Float[np.ndarray, " gaps"]
    noise: Float[np.ndarray, "draws gaps"]
    error: GapError
    expansion: float

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
        """Normal noise with the jackknife's covariance: what leaving out each document changes.

        It has no lattice, as resamples of few events have, nor is it smaller where few documents
        hold most events.

        Args:
            tables: what each document adds; index 0 of the last axis: events.
            read: from sums over documents to gaps.
            error: of gaps.
            draws: how often noise is drawn.
            level: of confidence of the expansion.
            seed: of the draws.
        """
        count, whole = len(tables), tables.sum(0)
        left_out = read(whole - tables)
        away = (left_out - left_out.mean(0)) * math.sqrt((count - 1) / count)
        normal = np.random.default_rng(seed).standard_normal((draws, count))
        return cls(read(whole[None])[0], normal @ away, error, expansion(tables, level))

    @cached_property
    def estimate(self) -> float:
        """The error itself."""
        return float(self.error(self.gaps[None])[0])

    def errors(self, scale: float) -> Float[np.ndarray, " draws"]:
        """Errors that a model with gaps so scaled would show."""
        errors = self.error(scale * self.gaps + self.noise)
        mean = errors.mean()
        return mean + self.expansion * (errors - mean)

    def share_above(self, scale: float) -> float:
        """The share of them at or above the estimate; it rises with the scale."""
        return float((self.errors(scale) >= self.estimate * (1 - 1e-12)).mean())

    def scales(self, level: float) -> tuple[float, float]:
        """The ends of the scales that could have led to the estimate (cf. Hansen, 1999).

        A scale is kept if the estimate lies between the tails of the errors that it makes. At 0
        all of 1 - level is in the upper tail, since no error is too small for a calibrated model;
        from where the gaps outgrow the noise on, half of it.
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
        """Of the error. It holds 0 for a calibrated model; the estimate may lie above its end."""
        low, high = (scale * self.estimate for scale in self.scales(level))
        return interval_of(self.estimate, low, high, level, "inverted test", self.errors(1.0))


def within_1(interval: Interval) -> Interval:
    """The interval of an error that cannot be above 1, which few documents leave open."""
    lower, upper = (min(1.0, end) for end in (interval.lower, interval.upper))
    return dataclasses.replace(interval, lower=lower, upper=upper)


def first_scale(reached: Callable[[float], bool]) -> float:
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
