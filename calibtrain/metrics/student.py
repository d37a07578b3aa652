"""Student's t over seeds: the confidence interval of a mean of a few runs.

It has a file of its own because the rooms that read records need it without loading JAX or NumPy.
"""

import math
from collections.abc import Sequence


def student_half_width(values: Sequence[float], level: float = 0.95) -> float | None:
    """Returns the half width of Student's interval of a mean over seeds; None for a single value.

    It is t(n - 1) s / sqrt(n), where s is the standard deviation of the n values.

    Args:
        values: one figure per seed.
        level: level of confidence.

    Example:
        >>> round(student_half_width([1.0, 2.0, 3.0]), 4)
        2.4841
    """
    if len(values) < 2:
        return None
    count = len(values)
    mean = sum(values) / count
    variance = sum((value - mean) ** 2 for value in values) / (count - 1)
    return student_quantile(count - 1, level) * math.sqrt(variance / count)


def student_quantile(freedom: int, level: float) -> float:
    """Returns how many standard errors the two-sided interval of Student's t reaches.

    Args:
        freedom: degrees of freedom, one less than the number of values.
        level: level of confidence.

    Example:
        >>> round(student_quantile(2, 0.95), 4)
        4.3027
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2))
