"""Metrics of rank: AUROC and risk-coverage, which say whether confidence tells right from wrong.

The Kolmogorov-Smirnov error stands with them, because it too is computed from rows in order of
confidence (`ordered`). Predictions of one confidence are one row: none is ranked before another.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from calibtrain.metrics.arguments import AnyArray, predictions
from calibtrain.metrics.ordered import BOTH, CONFIDENCE, CORRECT, WEIGHT, cumulative, ordered_rows


def area_under_roc(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """Returns AUROC = P(a right prediction is more confident than a wrong one); ties count 1/2.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        weights: weight of each prediction; default 1.

    Returns:
        The area in [0, 1]: 1/2 for guessing, more is better. It does not depend on the scale of
        the confidences.

    Raises:
        ValueError: where all predictions are right, or all wrong, so that there is no pair to rank
            (inside `jax.jit` the result is NaN); otherwise as `expected_calibration_error` does.

    Example:
        >>> print(f"{area_under_roc([0.9, 0.6, 0.6, 0.3], [1, 1, 0, 0]):.4f}")
        0.8750
    """
    p = predictions(confidence, correct, weights)
    if p.xp is np:
        require_both(p.correct @ p.weights, p.weights.sum())
    return roc_area(ordered_rows(p), p.xp)


def require_both(right: float, total: float) -> None:
    """Raises ValueError unless there are both right and wrong predictions."""
    if right <= 0 or right >= total:
        raise ValueError("correct: is all 0 or all 1; AUROC needs both right and wrong predictions")


def roc_area(rows: Float[AnyArray, "*batch rows columns"], xp: Any = np) -> Any:
    """Returns the AUROC of rows in order of confidence."""
    right = rows[..., CORRECT]
    wrong = rows[..., WEIGHT] - right
    below = xp.cumsum(wrong, -1) - wrong / 2
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN without right, or without wrong
        shares = right / xp.sum(right, -1, keepdims=True), below / xp.sum(wrong, -1, keepdims=True)
    return xp.sum(shares[0] * shares[1], -1)


def roc_area_bound(rows: Float[np.ndarray, "rows columns"]) -> float:
    """Returns how far AUROC may be from that of the predictions: half of the pairs within rows."""
    right = rows[:, CORRECT]
    wrong = rows[:, WEIGHT] - right
    return float((right * wrong).sum() / (right.sum() * wrong.sum()) / 2)


def risk_coverage(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, "rows 3"]:
    """Returns the risk-coverage curve, from the most confident prediction down.

    The model answers only where its confidence reaches a threshold: coverage is the share of
    predictions that it answers, risk the share of these that are wrong.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        weights: weight of each prediction; default 1.

    Returns:
        One row per distinct confidence (inside `jax.jit` n rows, of which the last ones repeat):
        coverage and risk, both in [0, 1], and the weight of the row. Predictions of one confidence
        are accepted together.

    Raises:
        ValueError: as `expected_calibration_error` does.

    Example:
        >>> print(risk_coverage([0.9, 0.6, 0.6, 0.3], [1, 1, 0, 0]))
        [[0.25   0.     1.    ]
         [0.75   0.3333 2.    ]
         [1.     0.5    1.    ]]

    References:
        El-Yaniv & Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010.
    """
    p = predictions(confidence, correct, weights)
    return risk_curve(ordered_rows(p), p.xp)


def risk_curve(
    rows: Float[AnyArray, "*batch rows columns"], xp: Any = np
) -> Float[AnyArray, "*batch rows 3"]:
    """Returns the risk-coverage curve of rows in order of confidence."""
    weight = rows[..., ::-1, WEIGHT]
    covered = xp.cumsum(weight, -1)
    wrong = xp.cumsum(weight - rows[..., ::-1, CORRECT], -1)
    risk = wrong / xp.where(covered > 0, covered, 1.0)
    return xp.stack([covered / covered[..., -1:], risk, weight], axis=-1)


def area_under_risk_coverage(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """Returns AURC, the area under the risk-coverage curve.

    It is the mean over predictions of the risk at each one's coverage. Arguments and errors are
    those of `risk_coverage`.

    Returns:
        The area in [0, 1]: less is better. For a constant confidence it is the error rate.

    Example:
        >>> print(f"{area_under_risk_coverage([0.9, 0.6, 0.6, 0.3], [1, 1, 0, 0]):.4f}")
        0.2917

    References:
        Geifman et al., "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR
        2019.
    """
    p = predictions(confidence, correct, weights)
    return risk_area(ordered_rows(p), p.xp)


def risk_area(rows: Float[AnyArray, "*batch rows columns"], xp: Any = np) -> Any:
    """Returns the AURC of rows in order of confidence."""
    curve = risk_curve(rows, xp)
    return xp.sum(curve[..., 1] * curve[..., 2], -1) / xp.sum(curve[..., 2], -1)


def risk_area_bound(rows: Float[np.ndarray, "rows columns"]) -> float:
    """Returns how far AURC may be from that of the predictions themselves.

    Whatever the order of the predictions within a row, covered weight lies between that before and
    that after the row, and so does the weight of the wrong ones.
    """
    weight = rows[::-1, WEIGHT]
    after = np.cumsum(weight)
    wrong_after = np.cumsum(weight - rows[::-1, CORRECT])
    before = after - weight
    wrong_before = wrong_after - (weight - rows[::-1, CORRECT])
    safe = np.maximum(after, np.finfo(float).tiny)
    risk = wrong_after / safe
    lowest = wrong_before / safe
    highest = np.where(before > 0, np.minimum(1, wrong_after / np.where(before > 0, before, 1)), 1)
    highest = np.where(wrong_after > 0, highest, 0)
    return float((weight * np.maximum(risk - lowest, highest - risk)).sum() / after[-1])


def kolmogorov_smirnov_error(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """Returns the Kolmogorov-Smirnov calibration error: max_t |sum_{c_i <= t} w_i (c_i - y_i)| / W.

    c_i, y_i and w_i are confidence, correctness and weight of prediction i, and W is the sum of the
    weights. There are no bins. Arguments and errors are those of `risk_coverage`.

    Returns:
        The error in [0, 1], without a unit.

    Example:
        >>> print(f"{kolmogorov_smirnov_error([0.3, 0.9], [0, 0]):.4f}")
        0.6000

    References:
        Gupta et al., "Calibration of Neural Networks using Splines", ICLR 2021.
    """
    p = predictions(confidence, correct, weights)
    return largest_running_gap(ordered_rows(p), p.xp)


def largest_running_gap(rows: Float[AnyArray, "rows columns"], xp: Any = np) -> Any:
    """Returns the KS error of rows in order of confidence."""
    gap = xp.cumsum(rows[:, CONFIDENCE] - rows[:, CORRECT])
    return xp.max(xp.abs(gap)) / xp.sum(rows[:, WEIGHT])


def gap_within(rows: Float[np.ndarray, "rows columns"]) -> tuple[Any, Any]:
    """Returns how far the cumulative gap may rise above, or fall below, its ends within each row.

    Within a row of binary correctness, the gap gains sum c (1 - y) and loses sum (1 - c) y, in an
    order that is not known.
    """
    return rows[:, CONFIDENCE] - rows[:, BOTH], rows[:, CORRECT] - rows[:, BOTH]


def largest_running_gap_bound(rows: Float[np.ndarray, "rows columns"]) -> float:
    """Returns by how much the KS error of the predictions themselves may exceed that of rows."""
    rise, fall = gap_within(rows)
    start = cumulative(rows, np)[:-1]
    gap = start[:, CONFIDENCE] - start[:, CORRECT]
    highest = np.maximum(np.abs(gap + rise), np.abs(gap - fall)).max() / rows[:, WEIGHT].sum()
    return float(max(0.0, highest - largest_running_gap(rows)))


def prediction_rejection_ratio(
    confidence: Float[AnyArray, " n"], quality: Float[AnyArray, " n"]
) -> float:
    """Returns how much of what rejection can gain confidence does gain: 1 is perfect, 0 is chance.

    Predictions are rejected from the least confident on. The gain is the mean, over all numbers of
    predictions that are kept, of the quality of those kept, less the quality of all; it is divided
    by that of an order by the quality itself (Malinin et al. 2017, as lm-polygraph has it). Of
    equal confidences none comes before another: the ratio is a mean over their orders.

    Args:
        confidence: of each prediction, in any unit that grows with confidence.
        quality: of each, for instance 1 where it was right and else 0.

    Raises:
        ValueError: for arrays of different lengths, none at all, values that are not finite, or
            one quality alone, which leaves nothing to gain.

    Example:
        >>> prediction_rejection_ratio([3, 2, 1], [1, 1, 0])
        1.0
    """
    order, worth = np.asarray(confidence, np.float64), np.asarray(quality, np.float64)
    if order.ndim != 1 or order.shape != worth.shape or not len(order):
        raise ValueError(f"quality: shapes {order.shape} and {worth.shape}: must be one (n,)")
    if not (np.isfinite(order).all() and np.isfinite(worth).all()):
        raise ValueError("confidence, quality: must be finite")
    if worth.min() == worth.max():
        raise ValueError(f"quality: is {worth[0]:g} for all, so that rejection can gain nothing")
    _, block = np.unique(-order, return_inverse=True)
    means = np.bincount(block, worth) / np.bincount(block)
    kept = np.arange(1, len(worth) + 1)

    def gain(sorted_quality: Float[np.ndarray, " n"]) -> float:
        return float((np.cumsum(sorted_quality) / kept).mean() - worth.mean())

    return gain(means[np.sort(block)]) / gain(np.sort(worth)[::-1])
