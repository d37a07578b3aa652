"""The results of `EventSums`: every figure by its public name, its interval, and tables.

Intervals come from `figure_intervals`; where there are many documents, they are over blocks of
neighbours.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.evaluation.event_sums import BYTES, COLUMNS, EventSums, N, StratumSums
from calibtrain.evaluation.figure_intervals import (
    RESAMPLES,
    group_intervals,
    interval_fields,
    main_intervals,
    plain_figures,
    thorough_intervals,
)
from calibtrain.evaluation.frequency import frequency_mass, with_reference
from calibtrain.evaluation.signatures import BRIER_PARTS
from calibtrain.evaluation.strata import FREQUENCY, PREDICTION
from calibtrain.metrics.calibration import table_error
from calibtrain.metrics.from_histogram import histogram_bounds, histogram_metrics
from calibtrain.metrics.ordered import WEIGHT
from calibtrain.metrics.ranking import risk_curve
from calibtrain.metrics.smooth import smooth_curve
from calibtrain.runs.document_rows import BIN_COLUMNS

CURVE_POINTS = 101
OPTIONAL = (
    "nll",
    "bits_per_byte",
    "multiclass_brier",
    "entropy_rate",
    "entropy_bits_per_byte",
    "entropy_calibration_error",
)
"""Figures that some kinds of events lack; they are None there."""


def compute_results(
    sums: EventSums,
    *,
    vocabulary_entries: Int[np.ndarray, " deciles"] | None = None,
    thorough: bool = True,
    exact: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns results by their public names.

    Args:
        sums: of all events.
        vocabulary_entries: how many entries of the vocabulary each frequency decile holds.
        thorough: whether strata and all errors have intervals too; otherwise only the main figures
            have, from fewer resamples, for evaluations in the midst of training.
        exact: figures that the caller computed from the events themselves; they replace those that
            are read from the histogram, and have no bound.

    Returns:
        Figures: tokens (events), bytes, nll (nats an event), bits_per_byte, accuracy,
        mean_confidence, signed_gap, ece and the other metrics of `metrics.histogram_metrics`, brier
        and its parts, multiclass_brier, entropy_rate (nats an event), entropy_bits_per_byte,
        entropy_calibration_error. Tables: reliability, smooth_reliability, risk_coverage, one for
        each stratum, and frequency_mass for events with `decile_columns`. intervals: lower, upper
        and method, by figure. bounds: how far figures that are read from a histogram may be off.
        What is not defined is None.

    Raises:
        ValueError: where there are no events.
    """
    figures, sigma = single_figures(sums, exact)
    blocks, bins = sums.blocks, sums.tables.shape[1]
    fine = sums.histogram.rows()
    intervals = main_intervals(sums, RESAMPLES if thorough else 200)
    if thorough:
        intervals |= thorough_intervals(sums, figures)
    strata = {
        name: _stratum(stratum, vocabulary_entries, thorough)
        for name, stratum in sums.strata.items()
    }
    mass = {}
    if sums.further is not None:
        strata[FREQUENCY.name] = with_reference(strata[FREQUENCY.name], sums)
        mass["frequency_mass"] = frequency_mass(sums, vocabulary_entries)
    return {
        "tokens": int(blocks[:, N].sum()),
        "bytes": int(blocks[:, BYTES].sum()),
        **figures,
        "intervals": {name: interval_fields(interval) for name, interval in intervals.items()},
        "bounds": {
            name: bound
            for name, bound in histogram_bounds(sums.histogram, bins=bins).items()
            if name not in (exact or {})
        },
        "reliability": _reliability(sums.tables.sum(0)),
        "smooth_reliability": _smooth_reliability(fine, sigma),
        "risk_coverage": _risk_coverage(fine),
        **strata,
        **mass,
    }


def document_columns(
    names: Sequence[str], chosen: Int[np.ndarray, " chosen"], sums: EventSums
) -> dict[str, Any]:
    """Returns the columns of `runs.document_rows` that the events have: a row per chosen document.

    Args:
        names: ids of all documents, by index.
        chosen: the documents that were scored, as the sums have them.
        sums: of all events.
    """
    columns = zip(("tokens", *COLUMNS), sums.documents[chosen].T, strict=True)
    tables = sums.document_tables
    bins = {} if tables is None else dict(zip(BIN_COLUMNS, np.moveaxis(tables, 2, 0), strict=True))
    return {
        "document": [names[index] for index in chosen],
        "index": chosen,
        "bytes": sums.document_bytes[chosen],
        **{key: column for key, column in columns if not np.isnan(column).all()},
        **bins,
    }


def single_figures(
    sums: EventSums, exact: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], float]:
    """Returns the figures of `compute_results`, and the bandwidth of the SmoothECE.

    Arguments and errors are those of `compute_results`.
    """
    blocks = sums.blocks
    if not blocks[:, N].sum():
        raise ValueError("no tokens: the selection is empty")
    figures: dict[str, Any] = dict.fromkeys(OPTIONAL)
    figures |= {
        name: float(of(blocks.sum(0)[None])[0]) for name, of in plain_figures(blocks).items()
    }
    errors = {**histogram_metrics(sums.histogram, bins=sums.tables.shape[1]), **(exact or {})}
    parts = {f"brier_{part}": errors.pop(part) for part in BRIER_PARTS}
    sigma = errors.pop("smooth_sigma")
    for name in ("weight", "accuracy", "mean_confidence", "signed_gap"):  # read from the blocks
        del errors[name]
    return {**figures, **errors, **parts}, sigma


# --- tables --------------------------------------------------------------------------------------


def _reliability(table: Float[np.ndarray, "bins 3"]) -> list[dict[str, Any]]:
    bins = len(table)
    return [
        {
            "lower": number / bins,
            "upper": (number + 1) / bins,
            "tokens": float(weight),
            "confidence": float(confidence / weight) if weight else None,
            "accuracy": float(correct / weight) if weight else None,
        }
        for number, (weight, confidence, correct) in enumerate(table)
    ]


def _smooth_reliability(fine: Float[np.ndarray, "cells 5"], sigma: float) -> list[dict[str, Any]]:
    curve = smooth_curve(fine, sigma, CURVE_POINTS)
    # where hardly any event is near, the accuracy would consist of rounding errors
    least = 1e-4 * np.nanmax(curve[:, 2])
    return [
        {
            "confidence": float(confidence),
            "accuracy": float(accuracy) if density > least else None,
            "density": float(density),
        }
        for confidence, accuracy, density in curve
    ]


def _risk_coverage(fine: Float[np.ndarray, "cells 5"]) -> list[dict[str, float]]:
    """The risk-coverage curve at evenly spaced coverages."""
    curve = risk_curve(fine[fine[:, WEIGHT] > 0])
    coverage = np.linspace(0, 1, CURVE_POINTS)[1:]
    order = np.argsort(curve[:, 0])
    risk = np.interp(coverage, curve[order, 0], curve[order, 1])
    return [{"coverage": float(c), "risk": float(r)} for c, r in zip(coverage, risk, strict=True)]


def _stratum(
    sums: StratumSums, entries: Int[np.ndarray, " deciles"] | None, thorough: bool
) -> list[dict[str, Any]]:
    """One row per group: its figures and their intervals; None where it holds no event."""
    rows = []
    for index, label in enumerate(sums.stratum.labels):
        row: dict[str, Any] = {"label": label}
        if sums.stratum.name in (FREQUENCY.name, PREDICTION.name):
            held = None if entries is None else int(entries[index])
            row |= {"decile": index + 1, "vocabulary_entries": held}
        blocks = sums.likelihood[:, index, 0] > 0  # that hold an event of the group
        likelihood, tables = sums.likelihood[blocks, index], sums.tables[blocks, index]
        rows.append(row | _group(likelihood, tables, thorough))
    return rows


def _group(
    likelihood: Float[np.ndarray, "blocks 3"],
    tables: Float[np.ndarray, "blocks bins 3"],
    thorough: bool,
) -> dict[str, Any]:
    statistics: dict[str, Callable[[Any], Any]] = {
        "nll": lambda s: s[:, 1] / s[:, 0],
        "entropy_rate": lambda s: s[:, 2] / s[:, 0],
        "mean_confidence": lambda s: s[:, 3] / s[:, 0],
        "accuracy": lambda s: s[:, 4] / s[:, 0],
        "signed_gap": lambda s: (s[:, 3] - s[:, 4]) / s[:, 0],
    }
    if not len(likelihood):
        return {"tokens": 0.0, **dict.fromkeys((*statistics, "ece", "intervals"))}
    absent = {
        name: None
        for name, column in (("nll", 1), ("entropy_rate", 2))
        if np.isnan(likelihood[:, column]).all()
    }
    statistics = {name: of for name, of in statistics.items() if name not in absent}
    sums = np.column_stack([likelihood, tables[:, :, 1:].sum(1)])
    whole = sums.sum(0)[None]
    intervals = group_intervals(sums, tables, statistics) if thorough else None
    return {
        "tokens": float(whole[0, 0]),
        **absent,
        **{name: float(of(whole)[0]) for name, of in statistics.items()},
        "ece": float(table_error(tables.sum(0))),
        "intervals": intervals
        and {name: interval_fields(each) for name, each in intervals.items()},
    }
