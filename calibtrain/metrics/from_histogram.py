"""Calibration metrics computed from a `ConfidenceHistogram`, each exact or with a bound."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from calibtrain.metrics.arguments import numbers, require_bins, require_kind
from calibtrain.metrics.calibration import bin_gaps, table_error
from calibtrain.metrics.debiased import debiased_square, sweep_error
from calibtrain.metrics.histogram import ConfidenceHistogram
from calibtrain.metrics.ordered import (
    BOTH,
    CORRECT,
    SQUARE,
    WEIGHT,
    cumulative,
    equal_mass,
)
from calibtrain.metrics.ranking import (
    gap_within,
    largest_running_gap,
    largest_running_gap_bound,
    risk_area,
    risk_area_bound,
    roc_area,
    roc_area_bound,
)
from calibtrain.metrics.scores import brier_parts_of_table
from calibtrain.metrics.smooth import smooth_error, smooth_error_bound

MAX_SWEEP_BINS = 1000


def histogram_metrics(state: ConfidenceHistogram, *, bins: int = 15) -> dict[str, Any]:
    """Returns the metrics of a state by their public names.

    Args:
        state: merged over all predictions.
        bins: number of bins of the binned errors; it must divide the number of cells.

    Returns:
        Exact figures: `weight`, accuracy, mean_confidence, signed_gap, `ece`,
        maximum_calibration_error, average_calibration_error, and `brier` with reliability,
        resolution, uncertainty and within_bin. Figures whose error `histogram_bounds` bounds:
        `ece_mass`, debiased_calibration_error, sweep_calibration_error and its `sweep_bins`,
        smooth_calibration_error and its `smooth_sigma`, area_under_roc (None where all predictions
        are right, or all wrong), area_under_risk_coverage and kolmogorov_smirnov_error.

    Raises:
        ValueError: for a state that is empty or not finite, or bins that do not divide the cells.

    Example:
        >>> state = ConfidenceHistogram.of(np.array([0.9, 0.9]), np.array([1.0, 0.0]))
        >>> print(f"{histogram_metrics(state)['ece']:.4f}")
        0.4000
    """
    rows = _rows(state)
    table = _width_table(state, bins)
    bins = len(table)
    total, confidence, correct = rows[:, : CORRECT + 1].sum(0)
    mass = _mass_table(rows, bins)
    sweep, sweep_bins = sweep_error(rows, MAX_SWEEP_BINS)
    smooth, sigma = smooth_error(rows)
    brier = (rows[:, SQUARE].sum() - 2 * rows[:, BOTH].sum() + correct) / total
    parts = brier_parts_of_table(table, brier)
    gaps = bin_gaps(table)
    both = 0 < correct < total
    found = {
        "weight": total,
        "accuracy": correct / total,
        "mean_confidence": confidence / total,
        "signed_gap": (confidence - correct) / total,
        "ece": table_error(table),
        "maximum_calibration_error": gaps.max(),
        "average_calibration_error": gaps.sum() / (table[:, 0] > 0).sum(),
        "brier": parts.brier,
        "reliability": parts.reliability,
        "resolution": parts.resolution,
        "uncertainty": parts.uncertainty,
        "within_bin": parts.within_bin,
        "ece_mass": table_error(mass),
        "debiased_calibration_error": max(debiased_square(mass), 0.0) ** 0.5,
        "sweep_calibration_error": sweep,
        "smooth_calibration_error": smooth,
        "smooth_sigma": sigma,
        "area_under_roc": roc_area(rows) if both else None,
        "area_under_risk_coverage": risk_area(rows),
        "kolmogorov_smirnov_error": largest_running_gap(rows),
    }
    numbers = {key: value if value is None else float(value) for key, value in found.items()}
    return {**numbers, "sweep_bins": int(sweep_bins)}


def histogram_bounds(state: ConfidenceHistogram, *, bins: int = 15) -> dict[str, float | None]:
    """Returns how far figures of `histogram_metrics` may be from those of the predictions.

    The bounds are computed from the state, and hold for any distribution of predictions that are
    either right or wrong. They are small where many cells are filled.

    Args:
        state: merged over all predictions.
        bins: number of bins, as for `histogram_metrics`.

    Returns:
        Bounds by name, of the figures that are not exact. The bound of sweep_calibration_error
        holds for the number of bins found; where accuracies of neighbouring bins are equal to
        within a cell, that number itself may differ. The bound of smooth_calibration_error holds at
        its bandwidth and therefore, since the error falls as the bandwidth grows, for the fixed
        point.

    Raises:
        ValueError: as `histogram_metrics` does.

    Example:
        >>> state = ConfidenceHistogram.of(np.array([0.9, 0.4]), np.array([1.0, 0.0]))
        >>> print(histogram_bounds(state)["area_under_roc"])  # no cell holds both kinds
        0.0
    """
    rows, bins = _rows(state), require_bins("bins", bins)
    total, right = rows[:, WEIGHT].sum(), rows[:, CORRECT].sum()
    _, sweep_bins = sweep_error(rows, MAX_SWEEP_BINS)
    _, sigma = smooth_error(rows)
    return {
        "ece_mass": _edge_errors(rows, bins)[0].sum() / total,
        "debiased_calibration_error": _debiased_bound(rows, bins),
        "sweep_calibration_error": _edge_errors(rows, sweep_bins)[0].sum() / total,
        "smooth_calibration_error": smooth_error_bound(rows, float(sigma)),
        "area_under_roc": roc_area_bound(rows) if 0 < right < total else None,
        "area_under_risk_coverage": risk_area_bound(rows),
        "kolmogorov_smirnov_error": largest_running_gap_bound(rows),
    }


def _rows(state: ConfidenceHistogram) -> Float[np.ndarray, "cells 5"]:
    require_kind("state", state, ConfidenceHistogram)
    table = numbers("state", state.table, -np.inf, np.inf)
    if table.ndim != 2 or table.shape[1] != 5:
        raise ValueError(f"state: table of shape {table.shape} must be [cells, 5]")
    rows = ConfidenceHistogram(table).rows()
    if rows[:, WEIGHT].sum() <= 0:
        raise ValueError("state: is empty; at least one prediction is needed")
    return rows


def _width_table(state: ConfidenceHistogram, bins: int) -> Float[np.ndarray, "bins 3"]:
    cells = len(state.table)
    bins = require_bins("bins", bins)
    if cells % bins:
        raise ValueError(f"bins: {bins} is not allowed; a divisor of the {cells} cells")
    return _rows(state)[:, : CORRECT + 1].reshape(bins, cells // bins, 3).sum(1)


def _mass_table(rows: Float[np.ndarray, "cells 5"], bins: int) -> Float[np.ndarray, "bins 3"]:
    return equal_mass(cumulative(rows, np), np.arange(bins + 1) / bins, np)


def _edge_errors(rows: Float[np.ndarray, "cells 5"], bins: int) -> tuple[Any, Any]:
    """Returns by how much the sums of gap and correctness of each equal-mass bin may be off.

    An edge divides a row in proportion. Within the row, the cumulative gap may be off that line by
    at most its rise or its fall, the cumulative correctness by at most the right or the wrong ones.
    """
    mass = np.cumsum(rows[:, WEIGHT])
    cut = np.searchsorted(mass, np.arange(1, bins) / bins * mass[-1], side="left")
    cut = np.minimum(cut, len(rows) - 1)
    gap = np.maximum(*gap_within(rows))[cut]
    right = np.minimum(rows[:, CORRECT], rows[:, WEIGHT] - rows[:, CORRECT])[cut]

    def both_edges(error: Any) -> Any:
        return np.append(error, 0.0) + np.append(0.0, error)

    return both_edges(gap), both_edges(right)


def _debiased_bound(rows: Float[np.ndarray, "cells 5"], bins: int) -> float:
    table = _mass_table(rows, bins)
    count, total = table[:, 0], table[:, 0].sum()
    gap, right = _edge_errors(rows, bins)
    square = (2 * np.abs(table[:, 1] - table[:, 2]) * gap + gap * gap) / count
    noise = right / np.maximum(count - 1, 1)  # y (1 - y) changes by no more than y does
    change = float((square + noise).sum() / total)
    found = max(float(debiased_square(table)), 0.0)
    return min(math.sqrt(change), change / math.sqrt(found) if found else math.inf)
