"""Confidence intervals of the ECE, and of the difference of two, from the noise of bins' gaps."""

from typing import Any

import numpy as np
from jaxtyping import Float

from calibtrain.metrics.arguments import require_level, require_whole
from calibtrain.metrics.intervals import Interval, checked_sums
from calibtrain.metrics.resampling import NoisyGaps, absolute_sum, scaled_difference, within_1


def calibration_error_interval(
    tables: Float[np.ndarray, "documents bins 3"],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Returns the interval of the ECE by inverting a test.

    The interval holds every ECE that could have led to the estimate. The gaps of the bins are
    scaled from 0 (a calibrated model) upwards and noise is added to them; a scale is kept if the
    estimate lies between the tails of the resulting ECEs. At scale 0 the upper tail holds all of 1
    - level, since no ECE is too small for a calibrated model; once gaps are larger than the noise
    it holds half. The lower end is 0 for a calibrated model; the upper end is not below that of an
    estimate without bias.

    Args:
        tables: from `document_tables`.
        resamples: number of draws of the noise.
        level: level of confidence.
        seed: seed of the draws.

    Raises:
        ValueError: for fewer than two documents, or sums that are not finite.

    Example:
        >>> from calibtrain.metrics import document_tables
        >>> rng = np.random.default_rng(0)
        >>> confidence, documents = rng.random(2000), np.repeat(np.arange(20), 100)
        >>> tables = document_tables(confidence, rng.random(2000) < confidence, documents, 20)
        >>> found = calibration_error_interval(tables)  # of a calibrated model
        >>> print(found.estimate > 0, found.lower)
        True 0.0

    References:
        Hansen, "The Grid Bootstrap and the Autoregressive Model", Review of Economics and
        Statistics 81, 1999.
    """
    resamples, level, seed = _checked_options(resamples, level, seed)
    model = _model(_checked_tables("tables", tables), resamples, level, seed)
    return within_1(model.interval(level))


def calibration_error_difference(
    first: Float[np.ndarray, "documents bins 3"],
    second: Float[np.ndarray, "documents bins 3"],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Returns the interval of ECE(first) - ECE(second), of two models on the same documents.

    The error of the difference is taken from pairs of models whose gaps are scaled and have noise
    added. It depends on the scales only where gaps are about as large as the noise; the interval
    holds for all pairs of scales that leave each model's estimate between its 10 % tails.

    Args:
        first: from `document_tables`.
        second: likewise, of the same documents in the same order.
        resamples: number of draws of the noise, which are the same for both models.
        level: level of confidence.
        seed: seed of the draws.

    Raises:
        ValueError: as `calibration_error_interval` does, and for numbers of documents that differ.

    Example:
        >>> from calibtrain.metrics import document_tables
        >>> rng = np.random.default_rng(0)
        >>> p, documents = rng.random(2000), np.repeat(np.arange(20), 100)
        >>> correct = rng.random(2000) < p
        >>> one, other = (document_tables(c, correct, documents, 20) for c in (p, p / 2))
        >>> found = calibration_error_difference(one, other)  # the second is under-confident
        >>> print(found.upper < 0)
        True
    """
    resamples, level, seed = _checked_options(resamples, level, seed)
    first, second = _checked_tables("first", first), _checked_tables("second", second)
    if len(first) != len(second):
        raise ValueError(f"second: has {len(second)} documents, first {len(first)}")
    one, other = (_model(tables, resamples, level, seed) for tables in (first, second))
    return scaled_difference(one, other, level)


def _checked_options(resamples: Any, level: Any, seed: Any) -> tuple[int, float, int]:
    return (
        require_whole("resamples", resamples, 2),
        require_level(level),
        require_whole("seed", seed, 0),
    )


def _checked_tables(name: str, tables: Any) -> Float[np.ndarray, "documents bins 3"]:
    tables = checked_sums(name, tables)
    if tables.ndim != 3 or tables.shape[-1] != 3:
        raise ValueError(f"{name}: shape {tables.shape} must be [documents, bins, 3]")
    if not (tables[..., 0] >= 0).all() or not tables[..., 0].any():
        raise ValueError(f"{name}: weights must not be below 0, or all be 0")
    return tables


def _model(
    tables: Float[np.ndarray, "documents bins 3"], draws: int, level: float, seed: int
) -> NoisyGaps:
    return NoisyGaps.of(tables, gaps_of_bins, absolute_sum, draws=draws, level=level, seed=seed)


def gaps_of_bins(
    tables: Float[np.ndarray, "*batch bins columns"],
) -> Float[np.ndarray, "*batch bins"]:
    """Returns each bin's part of the signed gap."""
    return (tables[..., 1] - tables[..., 2]) / tables[..., 0].sum(-1, keepdims=True)
