"""Typicality as figures of arrays: information minus entropy of texts, and its rank correlations.

The information of a text is -log2 of its probability under the model, and its entropy the sum of
the entropies of the steps that it went through. A typical text has about as much information as
entropy: its deviation is near 0. Greedy text lies below.

References:
    Meister, Wiher, Pimentel and Cotterell, "On the probability-quality paradox in language
        generation", ACL 2022.
    Welleck et al., "Neural Text Generation with Unlikelihood Training", ICLR 2020 (repetition).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.analysis.diversity import distinct_ngrams
from calibtrain.analysis.entropy_rate import Figure, figure
from calibtrain.metrics.intervals import resampled_sums

RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class MeasuredText:
    """A text, what the model says of it, and how good it is.

    Attributes:
        document: number of the document that it continues.
        text: its characters.
        bytes: that were scored, at least 1.
        information: in bits.
        entropy: in bits.
        quality: proxies by name; NaN where one is not defined.
    """

    document: int
    text: str
    bytes: int
    information: float
    entropy: float
    quality: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def deviation(self) -> float:
        """Information minus entropy, in bits per byte."""
        return (self.information - self.entropy) / self.bytes


def proxies(text: str) -> dict[str, float]:
    """Returns proxies of quality that need no model; NaN for texts that are too short.

    Returns:
        repetition: the share of runs of four words that the text held before (0 is best);
        distinct_2: distinct pairs of words over all of them.

    Example:
        >>> proxies("the cat sat on the cat sat on the mat")["repetition"]
        0.2857142857142857
    """
    words = text.split()
    return {
        "repetition": 1 - distinct_ngrams([words], 4),
        "distinct_2": distinct_ngrams([words], 2),
    }


def typicality_row(name: str, texts: Sequence[MeasuredText]) -> dict[str, Any]:
    """Returns the figures of texts of one origin; each document is drawn with all its texts."""
    documents = np.array([each.document for each in texts], int)
    size, information, entropy, deviation = (
        np.array([getattr(each, key) for each in texts], float)
        for key in ("bytes", "information", "entropy", "deviation")
    )
    names = dict.fromkeys(key for each in texts for key in each.quality)
    return {
        "name": name,
        "texts": len(texts),
        "bytes": int(size.sum()),
        "deviation": _mean(documents, np.ones(len(texts)), deviation),
        "spread": float(deviation.std(ddof=1)) if len(texts) > 1 else None,
        "information": _mean(documents, size, information),
        "entropy": _mean(documents, size, entropy),
        "quality": {
            key: _mean_where_defined(documents, [each.quality[key] for each in texts])
            for key in names
        },
    }


def correlation_row(quality: str, texts: Sequence[MeasuredText]) -> dict[str, Any]:
    """Returns the rank correlations of a proxy with the deviation and with its size."""
    own = [each for each in texts if math.isfinite(each.quality.get(quality, math.nan))]
    documents = np.array([each.document for each in own], int)
    values = np.array([each.quality[quality] for each in own])
    deviation = np.array([each.deviation for each in own])
    return {
        "quality": quality,
        "texts": len(own),
        "signed": rank_correlation(deviation, values, documents),
        "size": rank_correlation(np.abs(deviation), values, documents),
    }


def rank_correlation(
    first: Float[np.ndarray, " texts"],
    second: Float[np.ndarray, " texts"],
    documents: Int[np.ndarray, " texts"],
) -> Figure | None:
    """Returns Spearman's rank correlation, and percentiles of it over documents drawn anew.

    None for fewer than three texts, or where all values of one are equal.

    Args:
        first: one number of each text.
        second: the other.
        documents: texts of one document are drawn together.

    Example:
        >>> x = np.arange(6.0)
        >>> rank_correlation(x, x**3, np.arange(6))["estimate"]
        1.0
    """
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    estimate = _spearman(first, second, np.ones(len(first)))
    _, place = np.unique(documents, return_inverse=True)
    count = int(place.max()) + 1
    if count < 2:
        return {"estimate": estimate, "lower": None, "upper": None}
    times = resampled_sums(np.eye(count), resamples=RESAMPLES)  # how often each document was drawn
    drawn = np.array([_spearman(first, second, each[place]) for each in times])
    drawn = drawn[np.isfinite(drawn)]  # a draw whose values are all equal has no correlation
    lower, upper = np.quantile(drawn, [0.025, 0.975])
    return {"estimate": estimate, "lower": float(lower), "upper": float(upper)}


def _spearman(first: Any, second: Any, times: Any) -> float:
    """Returns Pearson's correlation of the mid-ranks, each text counted so many times."""
    a, b = _ranks(first, times), _ranks(second, times)
    total = times.sum()
    a, b = a - (times @ a) / total, b - (times @ b) / total
    spread = math.sqrt(float(times @ a**2) * float(times @ b**2))
    return float(times @ (a * b)) / spread if spread > 0 else math.nan


def _ranks(values: Any, times: Any) -> Any:
    """Returns the mean rank of each value among all, each counted so many times."""
    _, place = np.unique(values, return_inverse=True)
    held = np.bincount(place, times)
    return (np.cumsum(held) - held / 2)[place]


def _mean(documents: Any, weights: Any, values: Any) -> Figure | None:
    """Returns the sum of values over the sum of weights."""
    if not len(documents):
        return None
    columns = (weights, values)
    sums = np.stack([np.bincount(documents, column) for column in columns], axis=-1)
    return figure(sums, lambda s: s[:, 1] / s[:, 0])


def _mean_where_defined(documents: Any, values: Sequence[float]) -> Figure | None:
    own = np.isfinite(values)
    return _mean(documents[own], np.ones(own.sum()), np.asarray(values)[own])
