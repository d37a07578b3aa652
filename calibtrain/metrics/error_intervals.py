"""Confidence intervals of every calibration error, from one table of confidence per document.

All are inverted tests (`NoisyGaps`), but those of the maximum and the average error, which are
bounded bin by bin. The edges of equal-mass bins, the number of bins of the sweep and the bandwidth
of SmoothECE are those of all documents together.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from calibtrain.metrics.ece_intervals import gaps_of_bins
from calibtrain.metrics.intervals import Interval, interval_of
from calibtrain.metrics.ordered import CONFIDENCE, CORRECT, WEIGHT
from calibtrain.metrics.resampling import (
    NoisyGaps,
    absolute_sum,
    largest,
    scaled_difference,
    within_1,
)
from calibtrain.metrics.smooth import (
    mean_absolute,
    residual_density,
    residual_nodes,
    smooth_error,
    smooth_error_of,
)


def error_intervals(
    cells: Float[np.ndarray, "documents cells 5"],
    tables: Float[np.ndarray, "documents bins 3"],
    *,
    sweep_bins: int,
    draws: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Returns intervals by the public names of the errors.

    The interval of the debiased error is that of the L2 error without the correction for noise: the
    test accounts for the noise, so that nothing has to be clipped at 0.

    Args:
        cells: rows of a `ConfidenceHistogram` of each document.
        tables: reliability table of each document, for the maximum and the average error.
        sweep_bins: number of bins of the sweep error.
        draws: number of draws of the noise.
        level: level of confidence.
        seed: seed of the draws.
    """
    mass = equal_mass_tables(cells, tables.shape[1])
    sweep = equal_mass_tables(cells, sweep_bins)
    made = {
        "ece_mass": (mass, gaps_of_bins, absolute_sum),
        "debiased_calibration_error": (mass, _root_parts, lambda gaps: np.sqrt((gaps**2).sum(-1))),
        "sweep_calibration_error": (sweep, gaps_of_bins, absolute_sum),
    }
    options: dict[str, Any] = {"draws": draws, "level": level, "seed": seed}
    found = {name: NoisyGaps.of(*how, **options).interval(level) for name, how in made.items()}
    found["kolmogorov_smirnov_error"] = _running_interval(cells, **options)
    found["smooth_calibration_error"] = _smooth_interval(cells, **options)
    bins = _noisy_bins(tables, **options)
    found["maximum_calibration_error"] = _maximum_interval(bins, level)
    found["average_calibration_error"] = _average_interval(bins, level)
    return {name: within_1(interval) for name, interval in found.items()}


def equal_mass_tables(
    cells: Float[np.ndarray, "documents cells 5"], bins: int
) -> Float[np.ndarray, "documents bins 3"]:
    """Returns tables of bins that hold equal mass of all documents together; cells may be split."""
    weight = cells[:, :, WEIGHT].sum(0)
    after = np.cumsum(weight)
    edges = np.arange(bins + 1) / bins * after[-1]
    upper = np.minimum(edges[1:, None], after)
    shared = np.maximum(upper - np.maximum(edges[:-1, None], after - weight), 0.0)
    shares = shared / np.where(weight > 0, weight, 1.0)
    return np.einsum("bc,dcv->dbv", shares, cells[:, :, :3], optimize=True)


def _root_parts(tables: Float[np.ndarray, "batch bins 3"]) -> Float[np.ndarray, "batch bins"]:
    """Returns gaps whose squares add up to the square of the L2 error."""
    held = tables[..., WEIGHT]
    whole = held.sum(-1, keepdims=True)
    return (tables[..., CONFIDENCE] - tables[..., CORRECT]) / np.sqrt(np.maximum(held, 1) * whole)


def _running_gaps(cells: Float[np.ndarray, "batch cells 5"]) -> Float[np.ndarray, "batch cells"]:
    gaps = np.cumsum(cells[..., CONFIDENCE] - cells[..., CORRECT], axis=-1)
    return gaps / cells[..., WEIGHT].sum(-1, keepdims=True)


def _running_interval(
    cells: Float[np.ndarray, "documents cells 5"], *, draws: int, level: float, seed: int
) -> Interval:
    """Returns the interval of the KS error: a test below, and the bounds of running gaps above.

    Where the running gap goes down about as far as it goes up, noise that makes one of them larger
    makes the other smaller. A test that scales both misses that.
    """
    gaps = NoisyGaps.of(cells, _running_gaps, largest, draws=draws, level=level, seed=seed)
    found = gaps.interval(level)
    return dataclasses.replace(found, upper=max(found.upper, gaps.largest_upper(level)))


def _noisy_bins(
    tables: Float[np.ndarray, "documents bins 3"], *, draws: int, level: float, seed: int
) -> NoisyGaps:
    """Returns the gaps of the bins that are not empty, in units of accuracy, and their noise.

    In a bin of few events, leaving out documents does not show the noise (a single event shows
    none). There the noise is that of as many independent events of a calibrated model.
    """
    tables = tables[:, tables[:, :, WEIGHT].any(0)]
    count, confidence, correct = tables.sum(0).T

    def read(drawn: Float[np.ndarray, "batch bins 3"]) -> Float[np.ndarray, "batch bins"]:
        held = drawn[..., WEIGHT]
        gap = (drawn[..., CONFIDENCE] - drawn[..., CORRECT]) / np.where(held > 0, held, 1.0)
        return np.where(held > 0, gap, (confidence - correct) / count)

    found = NoisyGaps.of(tables, read, largest, draws=draws, level=level, seed=seed)
    mean = np.clip(confidence / count, 0.0, 1.0)
    rng = np.random.default_rng(seed)
    whole = np.maximum(np.round(count), 1).astype(np.int64)
    independent = mean - rng.binomial(whole, mean, (draws, len(mean))) / whole
    few = (found.noise**2).mean(0) < mean * (1 - mean) / whole
    return dataclasses.replace(found, noise=np.where(few, independent, found.noise))


def _maximum_interval(found: NoisyGaps, level: float) -> Interval:
    """Returns the interval of the maximum error, from bounds of the gaps of bins.

    The largest gap is at least the largest of lower bounds that hold jointly, and at most the
    largest of upper bounds that hold one by one. A scaled test would miss that the bin with most
    noise need not have the largest gap. The interval covers more often than its level says.
    """
    gaps, noise = found.gaps, found.expansion * found.noise
    spread = np.maximum(noise.std(0), 1e-12)
    together = np.quantile((np.abs(noise) / spread).max(-1), (1 + level) / 2)
    lower = max(0.0, (np.abs(gaps) - together * spread).max())
    upper = found.largest_upper(level)
    errors = np.abs(gaps + noise).max(-1)
    return interval_of(float(np.abs(gaps).max()), lower, upper, level, "bounds of bins", errors)


def _average_interval(found: NoisyGaps, level: float) -> Interval:
    """Returns the interval of the average error, from bounds of what noise adds to each |gap|.

    Noise adds most to a gap of 0, and nothing to a large one. What it adds is bounded at the ends
    of each gap's 80 % interval; the spread is that of the mean at the gaps found.
    """

    def added(size: Float[np.ndarray, " bins"]) -> float:
        return float((np.abs(size + noise).mean(0) - size).mean())

    noise, size, reach = found.noise, np.abs(found.gaps), 1.2816 * found.noise.std(0)
    estimate, errors = float(size.mean()), np.abs(found.gaps + noise).mean(-1)
    tails = np.quantile(errors - errors.mean(), [(1 - level) / 2, (1 + level) / 2])
    low, high = found.expansion * tails
    lower = max(0.0, estimate - added(np.maximum(size - reach, 0.0)) - high)
    upper = max(0.0, estimate - added(size + reach) - low)
    return interval_of(estimate, lower, upper, level, "bounds of bins", errors)


def smooth_error_difference(
    first: Float[np.ndarray, "documents cells 5"],
    second: Float[np.ndarray, "documents cells 5"],
    *,
    draws: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Returns the interval of SmoothECE(first) - SmoothECE(second), of two models on one text.

    As for the ECE (`calibration_error_difference`), both models' gaps are scaled to what could have
    led to the estimates, and the same noise of documents is added to both. Each model keeps the
    bandwidth that it has on all documents.

    Args:
        first: rows of a `ConfidenceHistogram` of each document.
        second: likewise, of the same documents in the same order.
        draws: number of draws of the noise.
        level: level of confidence.
        seed: seed of the draws.
    """
    options: dict[str, Any] = {"draws": draws, "level": level, "seed": seed}
    one, other = (_smooth_gaps(cells, **options) for cells in (first, second))
    return scaled_difference(one, other, level)


def _smooth_gaps(
    cells: Float[np.ndarray, "documents cells 5"], *, draws: int, level: float, seed: int
) -> NoisyGaps:
    """Returns the smoothed residual at the bandwidth of all documents, with its noise."""
    sigma = float(smooth_error(cells.sum(0))[1])

    def read(drawn: Float[np.ndarray, "batch cells 5"]) -> Float[np.ndarray, "batch nodes"]:
        return residual_density(drawn, sigma)

    return NoisyGaps.of(cells, read, mean_absolute, draws=draws, level=level, seed=seed)


def _smooth_interval(
    cells: Float[np.ndarray, "documents cells 5"], *, draws: int, level: float, seed: int
) -> Interval:
    """Returns the interval of SmoothECE, by a test of smECE at the bandwidth found.

    SmoothECE exceeds a value exactly where smECE at that bandwidth does.
    """
    rows = cells.sum(0)
    estimate = float(smooth_error(rows)[0])
    gaps = _smooth_gaps(cells, draws=draws, level=level, seed=seed)
    nodes, errors = residual_nodes(rows), gaps.errors(1.0)
    lower, upper = (float(smooth_error_of(scale * nodes)[0]) for scale in gaps.scales(level))
    upper = max(upper, gaps.unbiased_upper(level))
    return interval_of(estimate, lower, upper, level, "inverted test", errors)
