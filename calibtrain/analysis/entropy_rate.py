"""The entropy rate of generations against the cross entropy of text, as functions of arrays.

EntRate = (1/T) E[-log P(w)] over text that the model generates, and CE the same over real text. A
calibrated model has EntRate = CE; e^(EntRate - CE) is its amplification. Both are ratios of sums
over documents, and every interval comes from drawing documents anew.

References:
    Braverman et al., "Calibration, Entropy Rates, and Memory in Language Models", ICML 2020.
    Cao et al., arXiv:2511.11966, 2025 (entropy by position after a prefix).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from calibtrain.analysis.continuations import Scored
from calibtrain.metrics.intervals import UndefinedError, bootstrap

TOKENS, BYTES, INFORMATION, ENTROPY, TEXTS = range(5)
"""Columns of the sums of a document: numbers of tokens and bytes, nats of information and entropy,
and the number of its texts that have a token there."""
_BITS = 1 / math.log(2)

Sums = Float[np.ndarray, "documents ... columns"]
Figure = dict[str, float | None]
"""An estimate, and the ends of its 95 % interval over documents (null where it has none)."""


def position_sums(
    scored: Sequence[Sequence[Scored]], reach: int, width: int
) -> Float[np.ndarray, "documents bins columns"]:
    """Returns the sums of each document in bins of so many bytes.

    A token belongs to the bin in which it begins; the end of a text to the last bin that it met.

    Args:
        scored: the texts of each document.
        reach: bytes from which on tokens do not count.
        width: bytes of a bin.

    Example:
        >>> text = Scored(np.array([0, 3, 5]), np.array([3, 2, 0]), np.ones(3), np.ones(3), True)
        >>> print(position_sums([[text]], reach=8, width=4)[0, :, :2])
        [[2. 5.]
         [1. 0.]]
    """
    bins = -(-reach // width)
    found = np.zeros((len(scored), bins, TEXTS + 1))
    for document, texts in enumerate(scored):
        for text in texts:
            ends = text.bytes == 0  # the end of a text that fills the last bin
            within = (text.offsets < reach) | (ends & (text.offsets == reach))
            place = np.minimum(text.offsets[within], reach - 1) // width
            columns = (np.ones(len(place)), text.bytes, text.information, text.entropy)
            for column, values in enumerate(columns):
                own = values if column == TOKENS else values[within]
                found[document, :, column] += np.bincount(place, own, bins)
            found[document, np.unique(place), TEXTS] += 1
    return found


def reaching(scored: Sequence[Sequence[Scored]], reach: int) -> Bool[np.ndarray, " documents"]:
    """Returns which documents have only texts that reach so many bytes."""
    return np.array(
        [all(not text.ended or text.bytes.sum() >= reach for text in texts) for texts in scored]
    )


def figure(sums: Sums, statistic: Callable[[Any], Any]) -> Figure | None:
    """Returns a figure with its bootstrap interval over documents; None without any event.

    Args:
        sums: of each document.
        statistic: from sums over documents to the figure of each, as `metrics.intervals` has it.
    """
    sums = sums[sums[:, 0] > 0]
    if not len(sums):
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        estimate = float(statistic(sums.sum(0)[None])[0])
        if not math.isfinite(estimate):
            return None
        try:
            found = bootstrap(sums, statistic, method="expanded bca")
        except (UndefinedError, ValueError):  # a single document, or a resample without bytes
            return {"estimate": estimate, "lower": None, "upper": None}
    return {"estimate": estimate, "lower": found.lower, "upper": found.upper}


def nats_per_token(column: int) -> Callable[[Any], Any]:
    """Returns the statistic of a column of the sums, in nats per token."""
    return lambda sums: sums[:, column] / sums[:, TOKENS]


def bits_per_byte(column: int) -> Callable[[Any], Any]:
    """Returns the statistic of a column of the sums, in bits per byte."""
    return lambda sums: _BITS * sums[:, column] / sums[:, BYTES]


def calibration_figures(generated: Sums, given: Sums) -> dict[str, Figure | None]:
    """Returns the entropy rate of generations against the cross entropy of text.

    Args:
        generated: sums of each document's generations; the column `ENTROPY` is read.
        given: sums of what each document itself says; the column `INFORMATION` is read.

    Returns:
        excess_nats_per_token and excess_bits_per_byte (EntRate - CE), amplification (e to the
        first) and amplification_per_byte (2 to the second). Documents are drawn with both.

    Example:
        >>> given = np.array([[10, 20, 13.0, 0, 1], [10, 20, 12.0, 0, 1]])
        >>> generated = np.array([[8, 20, 0, 12.0, 1], [12, 24, 0, 20.0, 1]])
        >>> found = calibration_figures(generated, given)
        >>> round(found["excess_nats_per_token"]["estimate"], 3)
        0.35
    """
    both = np.concatenate([generated, given], axis=-1)
    cut = generated.shape[-1]

    def excess(one: Callable[[Any], Any], other: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return lambda sums: one(sums[:, :cut]) - other(sums[:, cut:])

    nats = excess(nats_per_token(ENTROPY), nats_per_token(INFORMATION))
    bits = excess(bits_per_byte(ENTROPY), bits_per_byte(INFORMATION))
    return {
        "excess_nats_per_token": figure(both, nats),
        "excess_bits_per_byte": figure(both, bits),
        "amplification": figure(both, lambda sums: np.exp(nats(sums))),
        "amplification_per_byte": figure(both, lambda sums: np.exp2(bits(sums))),
    }


def by_position(
    sums: Float[np.ndarray, "documents bins columns"],
    common: Bool[np.ndarray, " documents"],
    width: int,
    column: int,
) -> list[dict[str, Any]]:
    """Returns the figure of each bin, over all texts that reach it and over the common ones.

    Args:
        sums: of each document, by bins.
        common: documents whose texts all reach the last bin: the same texts in every bin.
        width: bytes of a bin.
        column: `ENTROPY` or `INFORMATION`.
    """
    return [
        {
            "start": index * width,
            "stop": (index + 1) * width,
            "texts": int(sums[:, index, TEXTS].sum()),
            "bits_per_byte": figure(sums[:, index], bits_per_byte(column)),
            "common_bits_per_byte": figure(sums[common, index], bits_per_byte(column)),
        }
        for index in range(sums.shape[1])
    ]


def rise(
    sums: Float[np.ndarray, "documents bins columns"],
    common: Bool[np.ndarray, " documents"],
    column: int,
) -> Figure | None:
    """Returns bits per byte in the last quarter of the positions less those in the first.

    Only documents whose texts all reach the last bin count, so that it is no effect of which texts
    end early.
    """
    own = sums[common]
    quarter = max(1, own.shape[1] // 4)
    first, last = own[:, :quarter].sum(1), own[:, -quarter:].sum(1)
    both = np.concatenate([last, first], axis=-1)
    cut, statistic = sums.shape[-1], bits_per_byte(column)
    return figure(both, lambda s: statistic(s[:, :cut]) - statistic(s[:, cut:]))
