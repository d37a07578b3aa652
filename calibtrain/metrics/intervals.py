"""Confidence intervals of figures: a bootstrap over documents, and Student's t over seeds.

Tokens of one document are not independent, so documents are resampled. Each document is first
reduced to sums (of nll, or a reliability table). A resample is the product of these sums with the
number of times that each document was drawn, so that its cost does not depend on the number of
tokens.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from calibtrain.metrics import student
from calibtrain.metrics.arguments import (
    as_array,
    numbers,
    predictions,
    require_bins,
    require_level,
    require_one_of,
    require_whole,
    whole_numbers,
)
from calibtrain.metrics.calibration import bin_edges

Statistic = Callable[[Float[np.ndarray, "..."]], Float[np.ndarray, "..."]]
"""Sums [batch, ...] of `batch` resamples -> a figure for each [batch]."""
Method = Literal["bca", "expanded bca", "basic", "percentile"]

AT_ONCE = 2**22
"""Numbers held at once of draws, and of sums without each document: about 100 MB."""


class UndefinedError(ValueError):
    """A figure is not defined for some resample, as AUROC where all predictions are wrong."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval.

    Attributes:
        estimate: the figure itself, not corrected for bias.
        lower: lower end.
        upper: upper end.
        level: share of such intervals that cover the truth.
        method: name of the method.
        standard_error: standard deviation of the resampled figures.
        bias: mean of the resampled figures minus the estimate: about how far the estimate lies
            above the truth.
    """

    estimate: float
    lower: float
    upper: float
    level: float
    method: str
    standard_error: float
    bias: float


def document_sums(
    values: Float[np.ndarray, "tokens columns"],
    documents: Int[np.ndarray, " tokens"],
    count: int,
) -> Float[np.ndarray, "documents columns"]:
    """Returns the sums over each document's tokens.

    Args:
        values: numbers of each token.
        documents: the document of each token, in [0, count).
        count: number of documents.

    Raises:
        ValueError: for shapes that do not fit, or values that are not finite.

    Example:
        >>> print(document_sums([[1.0], [2.0], [4.0]], [0, 0, 1], 2))
        [[3.]
         [4.]]
    """
    count = require_whole("count", count, 0)
    values = numbers("values", values, -np.inf, np.inf)
    if values.ndim != 2:
        raise ValueError(f"values: shape {values.shape} must be [tokens, columns]")
    documents = _checked_documents(documents, count, len(values))
    return np.stack([np.bincount(documents, v, count) for v in values.T], axis=-1)


def document_tables(
    confidence: Float[np.ndarray, " tokens"],
    correct: Float[np.ndarray, " tokens"],
    documents: Int[np.ndarray, " tokens"],
    count: int,
    *,
    bins: int = 15,
) -> Float[np.ndarray, "documents bins 3"]:
    """Returns one reliability table per document, of equal-width bins.

    Args:
        confidence: probability given to each prediction.
        correct: 1 where it was right, else 0.
        documents: the document of each, in [0, count).
        count: number of documents.
        bins: number of bins.

    Raises:
        ValueError: as `expected_calibration_error` does.

    Example:
        >>> document_tables([0.9, 0.2, 0.9], [1, 0, 0], [0, 0, 1], 2, bins=15).shape
        (2, 15, 3)
    """
    count, bins = require_whole("count", count, 1), require_bins("bins", bins)
    p = predictions(confidence, correct)
    documents = _checked_documents(documents, count, len(p.confidence))
    index = np.searchsorted(bin_edges(bins, p.precision)[1:-1], p.confidence, side="left")
    cell = documents * bins + index
    sums = [np.bincount(cell, v, count * bins) for v in (p.weights, p.confidence, p.correct)]
    return np.stack(sums, axis=-1).reshape(count, bins, 3)


def _checked_documents(documents: Any, count: int, tokens: int) -> Int[np.ndarray, " tokens"]:
    documents = as_array("documents", documents)
    if documents.shape != (tokens,):
        raise ValueError(f"documents: shape {documents.shape} must be that of the tokens, {tokens}")
    return whole_numbers("documents", documents, count)


def resampled_sums(
    sums: Float[np.ndarray, "documents ..."], *, resamples: int = 1000, seed: int = 0
) -> Float[np.ndarray, "resamples ..."]:
    """Returns sums over resamples: as many documents as there are, drawn with replacement.

    The draws depend on the seed and the number of documents alone, so that two models are compared
    on the same resamples.
    """
    count = len(sums)
    flat = np.ascontiguousarray(sums, np.float64).reshape(count, -1)
    out = np.empty((resamples, flat.shape[1]))
    block = max(1, AT_ONCE // count)
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = rng.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        out[start : start + rows] = times.astype(np.float64) @ flat
    return out.reshape(resamples, *np.shape(sums)[1:])


def bootstrap(
    sums: Float[np.ndarray, "documents ..."],
    statistic: Statistic,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    method: Method = "bca",
    seed: int = 0,
) -> Interval:
    """Returns the bootstrap interval of a figure that is a function of sums over documents.

    `bca` (bias-corrected and accelerated) is accurate to second order for smooth figures (nll,
    accuracy, signed gap, Brier, AUROC) and does not leave their range. `expanded bca` takes
    quantiles further out, by the ratio of Student's t for the effective number of documents to the
    normal quantile, because resamples spread too little where documents are few or few documents
    hold most events; the number of events is the first column of the sums. `basic` reflects the
    resampled figures about the estimate. It removes a bias where percentiles would add it a second
    time, and is for figures whose bias is small beside their spread. The ECE and differences of it
    have intervals of their own (`ece_intervals`).

    Args:
        sums: what each document adds.
        statistic: from sums over documents, [batch, ...], to the figure of each, [batch].
        resamples: number of resamples.
        level: level of confidence.
        method: as above, or `percentile`.
        seed: seed of the draws.

    Raises:
        ValueError: for fewer than two documents, sums that are not finite, and a figure that is not
            finite for some resample.

    Example:
        >>> sums = np.array([[10.0, 21.0], [10.0, 19.0], [20.0, 40.0]])  # tokens, nll
        >>> found = bootstrap(sums, lambda s: s[:, 1] / s[:, 0])
        >>> print(f"{found.estimate:.2f}", found.lower < 2 < found.upper)
        2.00 True

    References:
        Efron, "Better Bootstrap Confidence Intervals", JASA 82, 1987 (BCa).
        Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69,
        2015 (expanded quantiles).
    """
    require_one_of("method", method, ("bca", "expanded bca", "basic", "percentile"))
    if not callable(statistic):
        raise ValueError("statistic: must be a function of sums over documents")
    resamples, level = require_whole("resamples", resamples, 2), require_level(level)
    seed = require_whole("seed", seed, 0)
    sums = checked_sums("sums", sums)
    drawn = resampled_sums(sums, resamples=resamples, seed=seed)
    return bootstrap_of(sums, drawn, statistic, level, method)


def bootstrap_of(
    sums: Float[np.ndarray, "documents ..."],
    drawn: Float[np.ndarray, "resamples ..."],
    statistic: Statistic,
    level: float,
    method: Method,
) -> Interval:
    """Returns the `bootstrap` interval, given checked sums and their resamples."""
    estimate = float(figures_of(statistic, sums.sum(0)[None])[0])
    figures = figures_of(statistic, drawn)
    if not np.isfinite(figures).all() or not math.isfinite(estimate):
        raise UndefinedError("statistic: is not finite for some resamples of the documents")
    tail = (1 - level) / 2
    low, high = tail, 1 - tail
    if method in ("bca", "expanded bca"):
        by = expansion(sums, level) if method == "expanded bca" else 1.0
        low, high = _bca_levels(sums, statistic, estimate, figures, level, by)
    lower, upper = np.quantile(figures, [low, high])
    if method == "basic":
        lower, upper = 2 * estimate - upper, 2 * estimate - lower
    return interval_of(estimate, lower, upper, level, method, figures)


def bootstrap_difference(
    first: Float[np.ndarray, "documents ..."],
    second: Float[np.ndarray, "documents ..."],
    statistic: Statistic,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    method: Method = "bca",
    seed: int = 0,
) -> Interval:
    """Returns the interval of statistic(first) - statistic(second), of two models on one text.

    Both are resampled together, so that what makes a document hard for both models cancels.
    Arguments and errors are those of `bootstrap`; row i of both sums is the same document.

    Example:
        >>> first = np.array([[10.0, 21.0], [10.0, 19.0], [20.0, 40.0]])
        >>> second = first * [1, 0.9]
        >>> found = bootstrap_difference(first, second, lambda s: s[:, 1] / s[:, 0])
        >>> print(f"{found.estimate:.2f}", found.lower > 0)
        0.20 True
    """
    both, difference = paired_sums(first, second, statistic)
    return bootstrap(both, difference, resamples=resamples, level=level, method=method, seed=seed)


def paired_sums(
    first: Float[np.ndarray, "documents ..."],
    second: Float[np.ndarray, "documents ..."],
    statistic: Statistic,
) -> tuple[Float[np.ndarray, "documents columns"], Statistic]:
    """Returns the sums of two models beside each other, and the difference of their figures.

    Column 0 is each document's number of events, as `expansion` reads it.

    Raises:
        ValueError: as `bootstrap_difference` does.
    """
    first, second = checked_sums("first", first), checked_sums("second", second)
    if len(first) != len(second):
        raise ValueError(f"second: has {len(second)} documents, first {len(first)}")
    if not callable(statistic):
        raise ValueError("statistic: must be a function of sums over documents")
    shapes = np.shape(first)[1:], np.shape(second)[1:]
    cut = math.prod(shapes[0])
    flat = [np.reshape(a, (len(a), -1)) for a in (first, second)]
    both = np.column_stack([events_of(first), *flat])

    def difference(sums: Any) -> Any:
        one, other = sums[:, 1 : cut + 1], sums[:, cut + 1 :]
        return statistic(one.reshape(-1, *shapes[0])) - statistic(other.reshape(-1, *shapes[1]))

    return both, difference


def checked_sums(name: str, sums: Any) -> Float[np.ndarray, "documents ..."]:
    """Returns the sums in float64, checked to be finite and of two documents or more."""
    sums = numbers(name, sums, -np.inf, np.inf)
    count = len(sums) if sums.ndim else 0
    if count < 2:
        raise ValueError(f"{name}: of {count} documents; at least two are needed")
    return sums


def figures_of(statistic: Statistic, sums: Any) -> Float[np.ndarray, " batch"]:
    """Returns the figures of many sums, checked to be one each."""
    figures = np.asarray(statistic(sums), np.float64)
    if figures.shape != sums.shape[:1]:
        raise ValueError(f"statistic: returned shape {figures.shape}; wanted {sums.shape[:1]}")
    return figures


def events_of(sums: Float[np.ndarray, "documents ..."]) -> Float[np.ndarray, " documents"]:
    """Returns each document's number of events: index 0 of the last axis, over the axes between."""
    return sums[..., 0].reshape(len(sums), -1).sum(-1)


def kish(weight: Float[np.ndarray, " documents"]) -> float:
    """Returns the effective number of documents of such weights: (sum w)^2 / sum w^2."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def figures_left_out(
    sums: Float[np.ndarray, "documents ..."], statistic: Statistic
) -> Float[np.ndarray, " documents"]:
    """Returns the figure without each document in turn."""
    total = sums.sum(0)
    rows = max(1, AT_ONCE // max(1, total.size))
    parts = [figures_of(statistic, total - sums[i : i + rows]) for i in range(0, len(sums), rows)]
    return np.concatenate(parts)


def _bca_levels(
    sums: Any, statistic: Statistic, estimate: float, figures: Any, level: float, by: float
) -> tuple[float, float]:
    """Returns which quantiles of the resampled figures are the ends of the BCa interval."""
    from scipy.special import ndtr, ndtri  # scipy.stats takes a second to import

    below = ((figures < estimate).mean() + (figures <= estimate).mean()) / 2
    half = 1 / (2 * len(figures))
    bias = ndtri(np.clip(below, half, 1 - half))
    left_out = figures_left_out(sums, statistic)
    deviation = left_out.mean() - left_out
    spread = (deviation**2).sum() ** 1.5
    skew = (deviation**3).sum() / (6 * spread) if spread > 0 and np.isfinite(spread) else 0.0
    ends = by * ndtri([(1 - level) / 2, (1 + level) / 2]) + bias
    slope = 1 - skew * ends
    # with few unequal documents the correction has a pole near; beyond it there is no quantile
    corrected = np.where(slope > 0, ends / np.where(slope > 0, slope, 1.0), np.inf * np.sign(ends))
    low, high = ndtr(bias + corrected)
    return float(low), float(high)


def jackknife_error(left_out: Float[np.ndarray, " documents"]) -> float:
    """Returns the standard error of a figure, given it without each document in turn."""
    count, mean = len(left_out), float(left_out.mean())
    return math.sqrt((count - 1) / count * float(((left_out - mean) ** 2).sum()))


def expansion(sums: Float[np.ndarray, "documents ..."], level: float) -> float:
    """Returns the factor by which resamples of documents make an interval too short, at least.

    It is sqrt(n / (n - 1)) t / z, where t and z are quantiles of Student's t with n - 1 degrees of
    freedom and of the normal distribution. n = (sum w)^2 / sum w^2 is the effective number of
    documents (Kish), and w are their numbers of events.

    Args:
        sums: what each document adds; index 0 of the last axis is its number of events.
        level: level of confidence.
    """
    from scipy.special import ndtri, stdtrit

    weight = events_of(sums)
    effective = max(2.0, kish(weight))
    tail = (1 + level) / 2
    student = float(stdtrit(effective - 1, tail) / ndtri(tail))
    return math.sqrt(effective / (effective - 1)) * student


def interval_of(
    estimate: float, lower: Any, upper: Any, level: float, method: str, figures: Any
) -> Interval:
    """Returns an interval, with the standard error and bias of resampled figures."""
    return Interval(
        estimate=estimate,
        lower=float(lower),
        upper=float(upper),
        level=level,
        method=method,
        standard_error=float(figures.std(ddof=1)),
        bias=float(figures.mean()) - estimate,
    )


def student_half_width(values: Sequence[float], level: float = 0.95) -> float | None:
    """Returns the half width of Student's interval of a mean over seeds; None for a single value.

    Args:
        values: one figure per seed.
        level: level of confidence.

    Raises:
        ValueError: for values that are not a vector of finite numbers, or a level not in (0, 1).

    Example:
        >>> print(f"{student_half_width([1.0, 2.0, 3.0]):.4f}")
        2.4841
    """
    values, level = numbers("values", values, -np.inf, np.inf).tolist(), require_level(level)
    if not isinstance(values, list) or any(isinstance(value, list) for value in values):
        raise ValueError("values: must be a vector, one number per seed")
    return student.student_half_width(values, level)
