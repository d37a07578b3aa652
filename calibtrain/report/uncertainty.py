"""Intervals: over seeds by Student's t, over documents as the files give them; why there is none.

The room reads files only, so that what the files of several seeds do not say together (of a group
of a stratum, of a byte) is said here.
"""

import math
from collections.abc import Sequence

from calibtrain.report.results import Evaluation


def student(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half width of its 95 % interval (None for one value): t(n - 1) * s / sqrt(n)."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    from scipy.special import stdtrit

    spread = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, float(stdtrit(len(values) - 1, 0.975)) * math.sqrt(spread / len(values))


def no_seed_interval(seeds: int) -> str:
    """Why a mean over so many seeds has no interval."""
    return "no interval: one seed" if seeds == 1 else "no interval over seeds was made"


def no_interval(evaluation: Evaluation | None, key: str) -> str:
    """Why a figure of an evaluation has no interval over documents."""
    if evaluation is None:
        return "no interval: the evaluation's own file was not found"
    if "intervals" not in evaluation.raw:
        return "no interval: the file is of a version that made none"
    if evaluation.documents < 2:
        return "no interval: one document"
    if not evaluation.intervals:
        return "no interval: one block of documents"
    if "ece_mass" in evaluation.raw and "ece_mass" not in evaluation.intervals:
        return "no interval: in the midst of training only the main figures have one"
    return f"no interval is made for {key.replace('_', ' ')}"


def no_row_interval(tokens: float, whole: Evaluation) -> str:
    """Why a figure of one group of a stratum has no interval."""
    if not tokens:
        return "no token is in this group"
    if whole.documents < 2 or "intervals" not in whole.raw or not whole.intervals:
        return no_interval(whole, "")
    if "ece_mass" not in whole.intervals:
        return "no interval: in the midst of training groups have none"
    return "no interval: one document holds all of this group"
