"""Student's intervals of figures over documents: from leaving out one document at a time.

A figure is a function of sums over documents. Leaving out each document in turn gives its standard
error without any draws, and the effective number of documents gives Student's t its degrees of
freedom. Unlike quantiles of resamples, such an interval is not confined to what was resampled, so
that it covers where documents are few, or of very unequal length.
"""

import math
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
from jaxtyping import Float

from calibtrain.metrics.arguments import numbers, require_level
from calibtrain.metrics.intervals import (
    Interval,
    Statistic,
    UndefinedError,
    checked_sums,
    events_of,
    figures_left_out,
    figures_of,
    jackknife_error,
    kish,
    paired_sums,
)

METHOD = "student t"


def effective_documents(sizes: Float[np.ndarray, " documents"]) -> float:
    """Returns how many documents of equal size would tell as much: (sum w)^2 / sum w^2.

    Args:
        sizes: number of events of each document; those of size 0 do not count.

    Raises:
        ValueError: for sizes that are not a vector of finite numbers >= 0, or are all 0.

    Example:
        >>> print(effective_documents([5, 5, 5, 5]), f"{effective_documents([97, 1, 1, 1]):.2f}")
        4.0 1.06

    References:
        Kish, "Survey Sampling", Wiley, 1965.
    """
    sizes = numbers("sizes", sizes, 0.0, np.inf)
    if sizes.ndim != 1 or not sizes.any():
        raise ValueError("sizes: must be a vector, not all 0")
    return kish(sizes / sizes.max())


def student_interval(
    sums: Float[np.ndarray, "documents ..."], statistic: Statistic, *, level: float = 0.95
) -> Interval:
    """Returns Student's interval of a smooth figure that is a function of sums over documents.

    It is the figure +- t s. s is the jackknife's standard error: (n - 1)/n times the sum of the
    squared deviations of the figures without one document, under the root. t is the quantile of
    Student's distribution with n' - 1 degrees of freedom, where n' is the effective number of
    documents. For a mean over documents of equal size it is Student's interval itself.

    Args:
        sums: what each document adds; index 0 of the last axis is its number of events.
        statistic: from sums over documents, [batch, ...], to the figure of each, [batch].
        level: level of confidence.

    Raises:
        ValueError: for fewer than two documents, sums that are not finite, numbers of events below
            0 or all 0, and a figure that is not finite without some document.

    Example:
        >>> sums = np.array([[10.0, 21.0], [10.0, 19.0], [20.0, 40.0]])  # tokens, nll
        >>> found = student_interval(sums, lambda s: s[:, 1] / s[:, 0])
        >>> print(f"{found.estimate:.2f}", found.lower < 2 < found.upper)
        2.00 True

    References:
        Miller, "The Jackknife: A Review", Biometrika 61, 1974.
        Kish, "Survey Sampling", Wiley, 1965.
    """
    from scipy.special import stdtrit

    level = require_level(level)
    if not callable(statistic):
        raise ValueError("statistic: must be a function of sums over documents")
    sums = checked_sums("sums", sums)
    if sums.ndim < 2 or (events := events_of(sums)).min() < 0 or not events.any():
        raise ValueError("sums: must be [documents, ...]; index 0 of the last axis counts events")
    estimate = float(figures_of(statistic, sums.sum(0)[None])[0])
    left_out = figures_left_out(sums, statistic)
    if not np.isfinite(left_out).all() or not math.isfinite(estimate):
        raise UndefinedError("statistic: is not finite without some of the documents")
    count, mean = len(sums), float(left_out.mean())
    error = jackknife_error(left_out)
    effective = effective_documents(events)
    reach = float(stdtrit(max(effective - 1, 1.0), (1 + level) / 2)) * error
    return Interval(
        estimate=estimate,
        lower=estimate - reach,
        upper=estimate + reach,
        level=level,
        method=METHOD,
        standard_error=error,
        bias=(count - 1) * (mean - estimate),
    )


def student_difference(
    first: Float[np.ndarray, "documents ..."],
    second: Float[np.ndarray, "documents ..."],
    statistic: Statistic,
    *,
    level: float = 0.95,
) -> Interval:
    """Returns Student's interval of statistic(first) - statistic(second), of two models on a text.

    Documents are left out of both together, so that what makes a document hard for both models
    cancels. Arguments and errors are those of `student_interval`; row i of both sums is the same
    document.

    Example:
        >>> first = np.array([[10.0, 21.0], [10.0, 19.0], [20.0, 40.0]])
        >>> second = first * [1, 0.9]
        >>> found = student_difference(first, second, lambda s: s[:, 1] / s[:, 0])
        >>> print(f"{found.estimate:.2f}", found.lower > 0)
        0.20 True
    """
    both, difference = paired_sums(first, second, statistic)
    return student_interval(both, difference, level=level)


def student_figures(
    sums: Float[np.ndarray, "documents ..."],
    statistics: Mapping[str, Statistic],
    *,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Returns the `student_interval` of several figures by name.

    A figure that is not defined without some document has no interval.

    Raises:
        ValueError: for fewer than two documents, or sums that are not finite.

    Example:
        >>> sums = np.array([[10.0, 21.0, 5.0], [10.0, 19.0, 4.0], [20.0, 40.0, 9.0]])
        >>> mean = lambda column: lambda s: s[:, column] / s[:, 0]
        >>> sorted(student_figures(sums, {"nll": mean(1), "accuracy": mean(2)}))
        ['accuracy', 'nll']
    """
    sums = checked_sums("sums", sums)
    found = {}
    for name, statistic in statistics.items():
        with suppress(UndefinedError):
            found[name] = student_interval(sums, statistic, level=level)
    return found
