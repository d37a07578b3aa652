"""Intervals of an evaluation's figures, of 95 %, over documents.

Smooth figures have Student's intervals with the jackknife's standard error (`metrics.jackknife`);
the intervals of errors, which noise can only raise, are inverted tests (`metrics.resampling`).
Figures that need a fine table of confidence are read from a coarser one, of `event_sums.COARSE`
cells. Fewer than `FEWEST_DOCUMENTS` documents have no intervals, and few have a note.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from calibtrain.evaluation.event_sums import (
    BRIER,
    BYTES,
    CONFIDENCE,
    CORRECT,
    ENTROPY,
    NLL,
    EventSums,
    N,
)
from calibtrain.metrics.ece_intervals import calibration_error_interval
from calibtrain.metrics.error_intervals import error_intervals
from calibtrain.metrics.intervals import Interval
from calibtrain.metrics.jackknife import student_figures
from calibtrain.metrics.ranking import risk_area, roc_area
from calibtrain.metrics.resampling import NoisyGaps, largest, within

RESAMPLES = 1000
FEWER_RESAMPLES = 400
"""For intervals that are many (groups of strata) or take long (errors of a table of cells)."""
FEWEST_DOCUMENTS = 5
"""Fewer documents do not tell how much documents differ."""
FEW_DOCUMENTS = 20
"""Fewer documents, or fewer effective ones, are noted beside the figures."""
_LOG2 = math.log(2)


def plain_figures(blocks: Float[np.ndarray, "blocks 7"]) -> dict[str, Callable[[Any], Any]]:
    """Figures that are ratios of sums, as functions of sums [batch, 7] in nats and bytes.

    Figures that the events of these blocks do not have are left out.
    """

    def mean(column: int, factor: float = 1.0) -> Callable[[Any], Any]:
        return lambda s: factor * s[:, column] / s[:, N]

    found = {} if np.isnan(blocks[:, NLL]).all() else {"nll": mean(NLL)}
    found |= {
        "accuracy": mean(CORRECT),
        "mean_confidence": mean(CONFIDENCE),
        "signed_gap": lambda s: (s[:, CONFIDENCE] - s[:, CORRECT]) / s[:, N],
    }
    in_bytes = blocks[:, BYTES].sum() > 0
    if in_bytes and "nll" in found:
        found["bits_per_byte"] = lambda s: s[:, NLL] / _LOG2 / s[:, BYTES]
    if not np.isnan(blocks[:, BRIER]).all():
        found["multiclass_brier"] = mean(BRIER)
    if not np.isnan(blocks[:, ENTROPY]).all():
        found["entropy_rate"] = mean(ENTROPY)
        found["entropy_calibration_error"] = lambda s: np.abs(s[:, ENTROPY] - s[:, NLL]) / s[:, N]
        if in_bytes:
            found["entropy_bits_per_byte"] = lambda s: s[:, ENTROPY] / _LOG2 / s[:, BYTES]
    return found


_RANGES = {
    **dict.fromkeys(("nll", "bits_per_byte"), (0.0, math.inf)),
    **dict.fromkeys(("entropy_rate", "entropy_bits_per_byte"), (0.0, math.inf)),
    **dict.fromkeys(("accuracy", "mean_confidence"), (0.0, 1.0)),
    "multiclass_brier": (0.0, 2.0),
    "signed_gap": (-1.0, 1.0),
}
"""Ranges of figures, at which their intervals end."""


def smooth_intervals(
    sums: Float[np.ndarray, "blocks ..."], statistics: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Interval]:
    """Student's intervals of smooth figures by their public names, within their ranges."""
    return {
        name: within(interval, *_RANGES.get(name, (-math.inf, math.inf)))
        for name, interval in student_figures(sums, statistics).items()
    }


def group_intervals(
    sums: Float[np.ndarray, "blocks columns"],
    tables: Float[np.ndarray, "blocks bins 3"],
    statistics: Mapping[str, Callable[[Any], Any]],
) -> dict[str, Interval] | None:
    """Intervals of the figures of a group of a stratum and of its ECE; None for few blocks.

    Args:
        sums: what each block that holds an event of the group adds; column 0 counts events.
        tables: reliability table of each.
        statistics: figures as functions of the sums.
    """
    if len(sums) < FEWEST_DOCUMENTS:
        return None
    return {
        **smooth_intervals(with_zeros(sums), statistics),
        "ece": calibration_error_interval(tables, resamples=FEWER_RESAMPLES),
    }


def document_notes(documents: int, effective: float | None) -> list[str]:
    """What a reader must know of intervals over so many documents, one sentence; none for many.

    Args:
        documents: how many were scored.
        effective: the effective number, where it is known.
    """
    if documents < FEWEST_DOCUMENTS:
        held = "one document" if documents == 1 else f"{documents} documents"
        return [f"{held}: figures have no intervals, which need {FEWEST_DOCUMENTS} documents"]
    if documents < FEW_DOCUMENTS:
        return [
            f"{documents} documents: intervals over so few are wide and may cover less often than "
            "95 %"
        ]
    if effective is not None and round(effective, 1) < FEW_DOCUMENTS:
        return [
            f"{documents} documents of very unequal length count as {effective:.1f}: intervals are "
            "wide and may cover less often than 95 %"
        ]
    return []


def with_zeros(sums: Float[np.ndarray, "blocks columns"]) -> Float[np.ndarray, "blocks columns"]:
    """The sums, ready for resampling: 0 in columns that the events do not have; none reads them."""
    return np.where(np.isnan(sums).all(axis=0), 0.0, sums)


def main_intervals(sums: EventSums, resamples: int) -> dict[str, Interval]:
    """Intervals of the ratios of sums and of the ECE; none where there are few blocks.

    Args:
        sums: of all events.
        resamples: number of draws of the noise of the ECE.
    """
    blocks = sums.blocks
    if len(blocks) < FEWEST_DOCUMENTS:
        return {}
    statistics = plain_figures(blocks)
    statistics.pop("entropy_calibration_error", None)  # an error: in `thorough_intervals`
    return {
        **smooth_intervals(with_zeros(blocks), statistics),
        "ece": calibration_error_interval(sums.tables, resamples=resamples),
    }


def thorough_intervals(sums: EventSums, figures: Mapping[str, Any]) -> dict[str, Interval]:
    """Intervals of the figures read from the table of confidence, and of the entropy's error.

    Args:
        sums: of all events.
        figures: from `histogram_metrics`. Areas are read from coarse cells and may be off by the
            ties in them, so that their intervals are shifted to the figures.
    """
    blocks = sums.blocks
    if len(blocks) < FEWEST_DOCUMENTS:
        return {}
    errors = error_intervals(
        sums.coarse, sums.tables, sweep_bins=figures["sweep_bins"], draws=FEWER_RESAMPLES
    )
    right = blocks[:, CORRECT].sum()
    areas = {"area_under_risk_coverage": risk_area}
    if 0 < right < blocks[:, N].sum():
        areas["area_under_roc"] = roc_area
    ranked = student_figures(sums.coarse, {**areas, "brier": _brier})
    moved = {name: _shifted(interval, figures[name]) for name, interval in ranked.items()}
    moved = {name: within(interval, 0.0, 1.0) for name, interval in moved.items()}
    found = {**errors, **moved}
    if not np.isnan(blocks[:, ENTROPY]).all():
        entropy = NoisyGaps.of(blocks, _entropy_gap, largest, draws=RESAMPLES)
        found["entropy_calibration_error"] = entropy.interval()
    return found


def _shifted(interval: Interval, estimate: float) -> Interval:
    by = estimate - interval.estimate
    lower, upper = interval.lower + by, interval.upper + by
    return dataclasses.replace(interval, estimate=estimate, lower=lower, upper=upper)


def _entropy_gap(sums: Float[np.ndarray, "batch 7"]) -> Float[np.ndarray, "batch 1"]:
    return (sums[:, [ENTROPY]] - sums[:, [NLL]]) / sums[:, [N]]


def _brier(cells: Float[np.ndarray, "batch cells 5"]) -> Float[np.ndarray, " batch"]:
    weight, _, correct, square, both = cells.sum(1).T
    return (square - 2 * both + correct) / weight


def interval_fields(interval: Interval) -> dict[str, Any]:
    """The interval as the JSON files hold it."""
    return {"lower": interval.lower, "upper": interval.upper, "method": interval.method}
