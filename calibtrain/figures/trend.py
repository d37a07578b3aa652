"""The change of a figure with each doubling of the vocabulary, over the seeds of a study."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from calibtrain.figures.comparable import Lead
from calibtrain.figures.grouping import Comparison
from calibtrain.metrics.student import student_half_width

SIZES = 3
"""Fewest vocabulary sizes: two have a difference, and need no line."""


@dataclass(frozen=True)
class Trend:
    """The slope of a figure on log2 V: the mean of each seed's, with Student's 95 % interval."""

    slope: float
    half: float
    seeds: int
    sizes: int

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return abs(self.slope) - self.half > 1e-12  # seeds that agree exactly differ by rounding


def trend_of(comparison: Comparison, lead: Lead, key: str) -> Trend | None:
    """Returns how a figure changes with each doubling of the vocabulary.

    A seed counts where every size has its result, so that all seeds have the same sizes.

    Args:
        comparison: the groups of a study.
        lead: the evaluation that compares.
        key: the figure.

    Returns:
        None where vocabularies are not all that varies, where there are fewer than three sizes, and
        for fewer than two seeds.
    """
    if comparison.axis != "vocabulary" or len(comparison.series) != 1 or not lead.compares:
        return None
    by_size: list[tuple[float, Mapping[int, float]]] = []
    for group in comparison.groups:
        values = {
            int(arm.settings.get("seed", 0)): float(getattr(arm.evaluations[lead.evaluation], key))
            for arm in group.done
            if lead.evaluation in arm.evaluations
        }
        if values:
            by_size.append((math.log2(float(group.x)), values))
    seeds = sorted(set.intersection(*(set(values) for _, values in by_size))) if by_size else []
    if len(by_size) < SIZES or len(seeds) < 2:
        return None
    doublings = [place for place, _ in by_size]
    slopes = [slope(doublings, [values[seed] for _, values in by_size]) for seed in seeds]
    half = student_half_width(slopes)
    assert half is not None
    return Trend(sum(slopes) / len(slopes), half, len(seeds), len(by_size))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Returns the slope of the least-squares line through points.

    Example:
        >>> slope([9.0, 10.0, 12.0], [0.01, 0.02, 0.04])
        0.01
    """
    middle = sum(x) / len(x)
    centred = [value - middle for value in x]
    return sum(c * v for c, v in zip(centred, y, strict=True)) / sum(c * c for c in centred)
