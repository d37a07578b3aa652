"""Does a confidence tell right answers from wrong ones? Figures with intervals over questions.

A figure is written as a function of the weights of questions, so that one bootstrap serves all of
them, and differences of two confidences on the same questions.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from calibtrain.metrics.ece_intervals import calibration_error_interval
from calibtrain.metrics.intervals import Interval, UndefinedError, bootstrap
from calibtrain.metrics.ranking import prediction_rejection_ratio, roc_area
from calibtrain.runs.analysis_records import FigureRecord

BINS = 10
"""Bins of equal mass of the ECE, as Lyu et al. have them."""
_FEWEST = 5  # questions that an interval needs

Weighted = Callable[[Float[np.ndarray, "batch questions"]], Float[np.ndarray, " batch"]]
"""Weights of the questions -> the figure; NaN where it is not defined."""


def brier(
    confidence: Float[np.ndarray, " questions"], correct: Float[np.ndarray, " questions"]
) -> Weighted:
    """Returns the Brier score as a function of the weights of questions.

    Example:
        >>> brier(np.array([1.0, 0.5]), np.array([1.0, 0.0]))(np.ones((1, 2))).tolist()
        [0.125]
    """
    squares = np.square(confidence - correct)
    return lambda weights: weights @ squares / weights.sum(-1)


def area_under_roc(
    confidence: Float[np.ndarray, " questions"], correct: Float[np.ndarray, " questions"]
) -> Weighted:
    """Returns AUROC as a function of the weights of questions; of equal confidences none is first.

    Example:
        >>> area_under_roc(np.array([3.0, 2.0, 2.0]), np.array([1.0, 1.0, 0.0]))(np.ones((1, 3)))
        array([0.75])
    """
    _, place = np.unique(confidence, return_inverse=True)
    member = np.eye(place.max() + 1)[place]

    def area(weights: Float[np.ndarray, "batch questions"]) -> Float[np.ndarray, " batch"]:
        total, right = weights @ member, (weights * correct) @ member
        found: Float[np.ndarray, " batch"] = roc_area(np.stack([total, total, right], axis=-1))
        return found

    return area


def rejection_ratio(
    confidence: Float[np.ndarray, " questions"], correct: Float[np.ndarray, " questions"]
) -> Weighted:
    """Returns the prediction-rejection ratio as a function of the weights, whole numbers.

    Example:
        >>> rejection_ratio(np.array([3.0, 2.0, 1.0]), np.array([1.0, 1.0, 0.0]))(np.ones((1, 3)))
        array([1.])
    """

    def ratio(weights: Float[np.ndarray, "batch questions"]) -> Float[np.ndarray, " batch"]:
        found = np.full(len(weights), np.nan)
        for index, row in enumerate(weights):
            chosen = np.repeat(np.arange(len(row)), row.astype(int))
            if len(np.unique(correct[chosen])) > 1:
                found[index] = prediction_rejection_ratio(confidence[chosen], correct[chosen])
        return found

    return ratio


def over_questions(figure: Weighted, questions: int, *, seed: int = 0) -> FigureRecord | None:
    """Returns a figure with its 95 % interval over questions; None where it is not defined.

    It has no interval for fewer than five questions, and where some resample leaves it undefined.

    Args:
        figure: of the weights.
        questions: how many there are.
        seed: of the resamples.
    """
    estimate = float(figure(np.ones((1, questions)))[0])
    if not np.isfinite(estimate):
        return None
    if questions < _FEWEST:
        return _of(estimate, None)
    try:
        found = bootstrap(np.eye(questions), figure, seed=seed)
    except UndefinedError:
        found = None
    return _of(estimate, found)


def calibration_error(
    confidence: Float[np.ndarray, " questions"], correct: Float[np.ndarray, " questions"]
) -> FigureRecord:
    """Returns the ECE in `BINS` bins of equal mass, with its 95 % interval over questions.

    Questions of one confidence are shared out where an edge divides them, so that their order does
    not matter.
    """
    tables = equal_mass_tables(confidence, correct)
    gaps = tables.sum(0)
    estimate = float(np.abs(gaps[:, 1] - gaps[:, 2]).sum() / len(confidence))
    if len(confidence) < _FEWEST:
        return _of(estimate, None)
    return _of(estimate, calibration_error_interval(tables))


def equal_mass_tables(
    confidence: Float[np.ndarray, " questions"], correct: Float[np.ndarray, " questions"]
) -> Float[np.ndarray, "questions bins 3"]:
    """Returns what each question adds to weight, confidence and correctness of each bin.

    Example:
        >>> equal_mass_tables(np.array([0.9, 0.1]), np.array([1.0, 0.0])).sum(0)[:, 0]
        array([0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2, 0.2])
    """
    values, place, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    edges = np.linspace(0, len(confidence), BINS + 1)
    upper, lower = (
        np.minimum(edges[1:], ends[:, None]),
        np.maximum(edges[:-1], (ends - counts)[:, None]),
    )
    shares = np.maximum(0, upper - lower) / counts[:, None]  # value, bin
    columns = np.stack([np.ones_like(confidence), values[place], correct], axis=-1)
    return shares[place][:, :, None] * columns[:, None]


def _of(estimate: float, found: Interval | None) -> FigureRecord:
    if found is None:
        return FigureRecord.model_validate({"estimate": estimate, "lower": None, "upper": None})
    return FigureRecord.model_validate(
        {"estimate": estimate, "lower": found.lower, "upper": found.upper}
    )
