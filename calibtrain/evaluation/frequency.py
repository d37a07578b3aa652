"""What a model gives to rare tokens, and what a perfect model would show by what came.

Both are read from sums over tokens of what `decile_columns` makes of each. They cost an evaluation
no pass of its own, and are additive over documents, so that they have intervals.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.evaluation.event_sums import EventSums, N
from calibtrain.evaluation.figure_intervals import (
    FEWEST_DOCUMENTS,
    interval_fields,
    smooth_intervals,
)
from calibtrain.evaluation.strata import DECILES, FREQUENCY

_MASS, _TARGETS, _CONFIDENT_MASS, _CONFIDENT_HITS = range(4)


def decile_columns(
    mass: Float[np.ndarray, "events deciles"],
    confidence: Float[np.ndarray, " events"],
    decile: Int[np.ndarray, " events"],
    predicted: Int[np.ndarray, " events"],
) -> Float[np.ndarray, "events further"]:
    """Returns four numbers per event and decile, one after another (`ScoredEvents.further`).

    They are the probability p_D of the decile, 1 where the target lies in it, confidence times p_D,
    and the confidence where the prediction lies in it (else 0).

    Args:
        mass: probability of each decile.
        confidence: probability of what is predicted.
        decile: that of the target.
        predicted: that of the prediction.
    """
    events = np.arange(len(mass))
    mass, confidence = mass.astype(np.float64), confidence.astype(np.float64)
    columns = np.zeros((len(mass), DECILES, 4))
    columns[:, :, _MASS], columns[:, :, _CONFIDENT_MASS] = mass, confidence[:, None] * mass
    columns[events, decile, _TARGETS] = 1.0
    columns[events, predicted, _CONFIDENT_HITS] = confidence
    return columns.reshape(len(mass), -1)


def frequency_mass(
    sums: EventSums, entries: Int[np.ndarray, " deciles"] | None
) -> list[dict[str, Any]]:
    """Returns mass calibration by frequency decile, a row each (see `metrics.mass_calibration`).

    Args:
        sums: of events with `decile_columns`.
        entries: how many entries of the vocabulary each decile holds.
    """
    events, columns = sums.blocks[:, N], _columns(sums)
    statistics: dict[str, Callable[[Any], Any]] = {
        "predicted_share": lambda s: s[:, 1] / s[:, 0],
        "observed_share": lambda s: s[:, 2] / s[:, 0],
        "gap": lambda s: (s[:, 1] - s[:, 2]) / s[:, 0],
    }
    rows = []
    for decile in range(DECILES):
        own = columns[:, decile]
        blocks = np.column_stack([events, own[:, _MASS], own[:, _TARGETS]])
        whole = blocks.sum(0)[None]
        rows.append(
            {
                "label": str(decile + 1),
                "decile": decile + 1,
                "vocabulary_entries": None if entries is None else int(entries[decile]),
                "tokens": float(whole[0, 2]),
                **{name: float(of(whole)[0]) for name, of in statistics.items()},
                "intervals": _intervals(blocks, {"gap": statistics["gap"]}),
            }
        )
    return rows


def with_reference(rows: list[dict[str, Any]], sums: EventSums) -> list[dict[str, Any]]:
    """Returns the rows by the decile of the token that came, with what a perfect model would show.

    A target drawn from p lies in decile D with probability p_D, and is what is predicted with
    probability p of the prediction if that lies in D, else never. So a perfect model with these
    very probabilities shows, in the mean over the targets that lie in D,

        reference_gap = sum_t (c_t p_t,D - c_t [prediction in D]) / sum_t p_t,D,

    where c is the confidence. `excess_gap` is the signed gap less that; a perfect model's is 0 but
    for noise, and it has an interval.

    Args:
        rows: of the stratum `frequency_deciles`.
        sums: of events with `decile_columns`.
    """
    tables = sums.strata[FREQUENCY.name].tables.sum(2)  # blocks deciles 3
    blocks = np.concatenate([tables, _columns(sums)], axis=2)
    found = []
    for row, own in zip(rows, np.moveaxis(blocks, 1, 0), strict=True):
        whole = own.sum(0)[None]
        mass, came = whole[0, 3 + _MASS] > 0, whole[0, 0] > 0
        intervals: Mapping[str, Any] | None = row["intervals"]
        if came and mass and intervals is not None:
            intervals = {
                **intervals,
                **(_intervals(own, {"excess_gap": _excess_gap}) or {}),
            }
        found.append(
            {
                **row,
                "reference_gap": float(_reference_gap(whole)[0]) if mass else None,
                "excess_gap": float(_excess_gap(whole)[0]) if came and mass else None,
                "intervals": intervals,
            }
        )
    return found


def _columns(sums: EventSums) -> Float[np.ndarray, "blocks deciles 4"]:
    assert sums.further is not None
    return sums.further.reshape(-1, DECILES, 4)


def _reference_gap(sums: Float[np.ndarray, "batch 7"]) -> Float[np.ndarray, " batch"]:
    own = sums[:, 3:]
    return (own[:, _CONFIDENT_MASS] - own[:, _CONFIDENT_HITS]) / own[:, _MASS]


def _excess_gap(sums: Float[np.ndarray, "batch 7"]) -> Float[np.ndarray, " batch"]:
    return (sums[:, 1] - sums[:, 2]) / sums[:, 0] - _reference_gap(sums)


def _intervals(
    blocks: Float[np.ndarray, "blocks columns"], statistics: Mapping[str, Callable[[Any], Any]]
) -> dict[str, Any] | None:
    """Returns the intervals over documents, none where there are few blocks of them."""
    if len(blocks) < FEWEST_DOCUMENTS:
        return None
    with np.errstate(invalid="ignore", divide="ignore"):  # without a document no decile: none
        found = smooth_intervals(blocks, statistics)
    return {name: interval_fields(interval) for name, interval in found.items()}
