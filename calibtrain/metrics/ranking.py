"""Does confidence tell right from wrong, whatever its scale: AUROC, risk-coverage; and KS.

All are computed from rows in order of confidence (`ordered`), in which predictions of one
confidence are one row: they are ranked neither before nor after each other.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from calibtrain.metrics.arguments import AnyArray, predictions
from calibtrain.metrics.ordered import BOTH, CONFIDENCE, CORRECT, WEIGHT, ordered_rows, running


def area_under_roc(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """AUROC: P(a right prediction is more confident than a wrong one), ties counting one half.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        weights: weight of each prediction; default 1.

    Raises:
        ValueError: also where all predictions are right, or all wrong: there is no pair to rank
            (inside `jax.jit` NaN).
    """
    p = predictions(confidence, correct, weights)
    if p.xp is np:
        require_both(p.correct @ p.weights, p.weights.sum())
    return roc_area(ordered_rows(p), p.xp)


def require_both(right: float, total: float) -> None:
    """Raises ValueError where not both right and wrong predictions are there."""
    if right <= 0 or right >= total:
        raise ValueError("correct: is all 0 or all 1; AUROC needs both right and wrong predictions")


def roc_area(rows: Float[AnyArray, "*batch rows columns"], xp: Any = np) -> Any:
    """AUROC of rows in order of confidence."""
    right = rows[..., CORRECT]
    wrong = rows[..., WEIGHT] - right
    below = xp.cumsum(wrong, -1) - wrong / 2
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN where one of both is missing
        shares = right / xp.sum(right, -1, keepdims=True), below / xp.sum(wrong, -1, keepdims=True)
    return xp.sum(shares[0] * shares[1], -1)


def roc_area_bound(rows: Float[np.ndarray, "rows columns"]) -> float:
    """How far AUROC may be from that of the predictions themselves: half of the pairs in a row."""
    right = rows[:, CORRECT]
    wrong = rows[:, WEIGHT] - right
    return float((right * wrong).sum() / (right.sum() * wrong.sum()) / 2)


def risk_coverage(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, "rows 3"]:
    """The risk-coverage curve (El-Yaniv & Wiener, JMLR 2010), from the surest prediction down.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        weights: weight of each prediction; default 1.

    Returns:
        A row a distinct confidence (inside `jax.jit` n rows, the last ones repeating): coverage,
        the share of predictions at least as confident; risk, how many of them are wrong; and the
        weight of the row. Predictions of one confidence are accepted together or not at all.
    """
    p = predictions(confidence, correct, weights)
    return risk_curve(ordered_rows(p), p.xp)


def risk_curve(
    rows: Float[AnyArray, "*batch rows columns"], xp: Any = np
) -> Float[AnyArray, "*batch rows 3"]:
    """The risk-coverage curve of rows in order of confidence."""
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
    """AURC: the mean, over predictions, of the risk at each one's coverage (Geifman et al., 2019).

    Arguments as for `risk_coverage`. Smaller is better; the error rate for a constant confidence.
    """
    p = predictions(confidence, correct, weights)
    return risk_area(ordered_rows(p), p.xp)


def risk_area(rows: Float[AnyArray, "*batch rows columns"], xp: Any = np) -> Any:
    """AURC of rows in order of confidence."""
    curve = risk_curve(rows, xp)
    return xp.sum(curve[..., 1] * curve[..., 2], -1) / xp.sum(curve[..., 2], -1)


def risk_area_bound(rows: Float[np.ndarray, "rows columns"]) -> float:
    """How far AURC may be from that of the predictions themselves.

    Among a row's predictions, in whatever order, covered weight lies between that before and after
    the row, and so does the weight of the wrong ones.
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
    """KS calibration error: the largest |sum of confidence - correctness| up to any confidence.

    max_t |sum_{c_i <= t} w_i (c_i - y_i)| / W, in [0, 1] (Gupta et al., ICLR 2021): it has no bins.
    Arguments as for `risk_coverage`.
    """
    p = predictions(confidence, correct, weights)
    return largest_running_gap(ordered_rows(p), p.xp)


def largest_running_gap(rows: Float[AnyArray, "rows columns"], xp: Any = np) -> Any:
    """The KS error of rows in order of confidence."""
    gap = xp.cumsum(rows[:, CONFIDENCE] - rows[:, CORRECT])
    return xp.max(xp.abs(gap)) / xp.sum(rows[:, WEIGHT])


def gap_within(rows: Float[np.ndarray, "rows columns"]) -> tuple[Any, Any]:
    """How far the running gap may rise above, or fall below, its ends within each row.

    In a row of binary correctness, sum c (1 - y) of the gap is added and sum (1 - c) y taken away,
    in an order that the row does not tell.
    """
    return rows[:, CONFIDENCE] - rows[:, BOTH], rows[:, CORRECT] - rows[:, BOTH]


def largest_running_gap_bound(rows: Float[np.ndarray, "rows columns"]) -> float:
    """How far the KS error may be from (above) that of the predictions themselves."""
    rise, fall = gap_within(rows)
    start = running(rows, np)[:-1]
    gap = start[:, CONFIDENCE] - start[:, CORRECT]
    highest = np.maximum(np.abs(gap + rise), np.abs(gap - fall)).max() / rows[:, WEIGHT].sum()
    return float(max(0.0, highest - largest_running_gap(rows)))
