"""Predictions of any model as an event space: was the prediction right, and how sure was it?

A prediction is its confidence and whether it was right; or the log-probabilities of several choices
and the index of the right one, from which nll, entropy and the Brier score come too. Where nothing
else is said, every prediction counts as a document of its own.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.config import EvaluationConfig, validate
from calibtrain.data.batches.sample import Stretch
from calibtrain.data.predictions.table import Choices, Judged, PredictionTable
from calibtrain.errors import SettingError
from calibtrain.evaluation.choices import choice_columns
from calibtrain.evaluation.event_space import EventSpace, Measurement
from calibtrain.evaluation.event_sums import COLUMNS, MAX_BLOCKS, ScoredEvents, Stratum
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.strata import CONFIDENCE, ENTROPY, document_groups
from calibtrain.metrics.arguments import as_array, predictions, whole_numbers
from calibtrain.metrics.calibration import expected_calibration_error
from calibtrain.metrics.debiased import debiased_calibration_error, sweep_error
from calibtrain.metrics.from_histogram import MAX_SWEEP_BINS
from calibtrain.metrics.ordered import ordered_rows
from calibtrain.metrics.ranking import largest_running_gap, risk_area, roc_area


def measure(
    confidence: Any = None,
    correct: Any = None,
    *,
    log_probabilities: Any = None,
    label: Any = None,
    documents: Any = None,
    groups: Any = None,
    bins: int = 15,
    name: str = "predictions",
) -> Evaluation:
    """Returns the evaluation of predictions that any model made.

    Arrays may be those of NumPy, JAX, PyTorch (on the CPU), pandas, Polars or Arrow, or lists. Give
    `confidence` and `correct`, or `log_probabilities` and `label`.

    Args:
        confidence: [predictions], the probability given to each prediction, in [0, 1].
        correct: [predictions], 1 or True where it was right, else 0 or False.
        log_probabilities: [predictions, choices], in nats, up to a constant per row: their softmax
            is the distribution over the choices, its largest value the confidence. -inf stands for
            a choice of probability 0, or for none where rows have fewer choices.
        label: [predictions], index of the right choice, counted from 0.
        documents: [predictions], a name or number each: predictions that belong together (questions
            on one passage). Intervals are over documents; default: each prediction is one.
        groups: [predictions], a name or number each: results are given by group too.
        bins: equal-width bins of the ECE and of the reliability table; a divisor of 480.
        name: what the predictions are called in the results.

    Returns:
        The evaluation: every figure with its interval, as `calibtrain measure --json` prints it
        (`.to_dict()`). nll and entropy are in nats per prediction. What predictions do not have
        (bits per byte; without log-probabilities also nll, entropy and the multiclass Brier score)
        is None.

    Raises:
        ValueError: naming the argument, for values that are not allowed, or lengths that differ.
        UserError: for bins or a number of groups that are not allowed.

    Example:
        >>> found = measure([0.9, 0.8, 0.7, 0.6], [1, 1, 1, 0], groups=["a", "a", "b", "b"])
        >>> print(f"{found.results['ece']:.4f} {found.results['area_under_roc']:.4f}")
        0.3000 1.0000
        >>> import math
        >>> rows = [[math.log(0.6), math.log(0.4)], [math.log(0.1), math.log(0.9)]]
        >>> found = measure(log_probabilities=rows, label=[0, 0])
        >>> print(f"{found.results['mean_confidence']:.2f} {found.results['accuracy']:.2f}")
        0.75 0.50
    """
    given = {
        "confidence": confidence,
        "correct": correct,
        "log_probabilities": log_probabilities,
        "label": label,
    }
    names = tuple(key for key, value in given.items() if value is not None)
    if names == ("confidence", "correct"):
        scores: Judged | Choices = _judged(confidence, correct)
    elif names == ("log_probabilities", "label"):
        scores = _choices(log_probabilities, label)
    else:
        raise ValueError(
            f"confidence: {', '.join(names) or 'nothing'} was given; confidence and correct are "
            "needed, or log_probabilities and label"
        )
    count = len(scores)
    table = PredictionTable(
        name=name,
        content_hash="",
        scores=scores,
        documents=_names("documents", documents, count),
        groups=_names("groups", groups, count),
    )
    return measured(dataclasses.replace(table, content_hash=_digest(table)), bins=bins)


def measured(table: PredictionTable, *, bins: int = 15) -> Evaluation:
    """Returns the evaluation of checked predictions.

    Raises:
        UserError: for bins or a number of groups that are not allowed.
    """
    if isinstance(table.scores, Choices):
        space = EventSpace(
            "candidate", (CONFIDENCE, ENTROPY), confidence="max", precision=np.float64
        )
    else:
        space = EventSpace(
            "prediction",
            (CONFIDENCE,),
            confidence="given",
            precision=table.scores.confidence.dtype,
        )
    about = {"split": "all", "step": 0, "tokenizer_hash": None}
    return measured_as(table, space, about, bins=bins)


def measured_as(
    table: PredictionTable,
    space: EventSpace,
    about: Mapping[str, Any],
    *,
    bins: int,
    **made: Any,
) -> Evaluation:
    """Returns the evaluation of checked predictions as events of some kind.

    Args:
        table: the predictions.
        space: what they are; the stratum of the table's groups is added.
        about: split, step and hash of the tokenizer; the table has the rest.
        bins: equal-width bins of the ECE.
        made: how they were made, as `Measurement.evaluation` takes it.

    Raises:
        UserError: for bins or a number of groups that are not allowed.
    """
    bins = validate(EvaluationConfig, {"bins": bins}).bins
    count, scores = len(table.scores), table.scores
    if isinstance(scores, Choices):
        given = scores.log_probabilities - scores.log_probabilities.max(-1, keepdims=True)
        logs = given - np.log(np.exp(given).sum(-1, keepdims=True))
        values = choice_columns(np.exp(logs), logs, scores.label)
    else:
        values = np.full((count, len(COLUMNS)), np.nan)
        values[:, COLUMNS.index("confidence")] = scores.confidence
        values[:, COLUMNS.index("correct")] = scores.correct
    names, document = _numbered(table.documents, count)
    events = ScoredEvents(document=document, values=values)
    space = dataclasses.replace(
        space, strata=(*space.strata, *_group_stratum(table.groups, events))
    )
    stretches = [Stretch(int(number), 0, 0) for number in _drawn(len(names))]
    facts = {
        **about,
        "corpus": table.name,
        "corpus_hash": table.content_hash,
        **({"notes": list(table.notes)} if table.notes else {}),
    }
    measurement = Measurement(space, _Documents(names), stretches, facts, bins)
    sums = measurement.sums([events])
    confidence, correct = (events.column(key) for key in ("confidence", "correct"))
    exact = exact_figures(confidence.astype(space.precision), correct, bins)
    found = measurement.evaluation(sums, measurement.results(sums, exact=exact), **made)
    order = np.argsort(measurement.chosen)
    columns = {
        key: np.asarray(column)[order]
        for key, column in found.documents.items()
        if key not in ("bytes", "index")
    }
    return dataclasses.replace(found, documents=columns)


def exact_figures(
    confidence: Float[np.ndarray, " n"], correct: Float[np.ndarray, " n"], bins: int
) -> dict[str, float | None]:
    """Returns the figures that a histogram bounds only, from the predictions themselves."""
    rows = ordered_rows(predictions(confidence, correct))
    sweep, sweep_bins = sweep_error(rows, min(MAX_SWEEP_BINS, len(confidence)))
    both = 0 < correct.sum() < len(correct)
    return {
        "ece_mass": float(
            expected_calibration_error(confidence, correct, bins=bins, scheme="mass")
        ),
        "debiased_calibration_error": float(
            debiased_calibration_error(confidence, correct, bins=bins)
        ),
        "sweep_calibration_error": float(sweep),
        "sweep_bins": int(sweep_bins),
        "area_under_roc": float(roc_area(rows)) if both else None,
        "area_under_risk_coverage": float(risk_area(rows)),
        "kolmogorov_smirnov_error": float(largest_running_gap(rows)),
    }


@dataclasses.dataclass(frozen=True)
class _Documents:
    """Documents of which only the names are known."""

    document_ids: tuple[str, ...]

    @property
    def document_bytes(self) -> Int[np.ndarray, " documents"]:
        return np.zeros(len(self.document_ids), np.int64)


def _drawn(documents: int) -> Int[np.ndarray, " documents"]:
    """Returns all documents; where blocks hold several, in an order that mixes them.

    A file is often sorted by task: blocks of neighbours would leave a task only a few of them.
    """
    if documents <= MAX_BLOCKS:
        return np.arange(documents)
    return np.random.default_rng(0).permutation(documents)


def _group_stratum(groups: Sequence[str], events: ScoredEvents) -> tuple[Stratum, ...]:
    """Returns the stratum of the groups of events, which all come in one batch."""
    try:
        found = document_groups(groups)
    except SettingError as error:
        raise type(error)("", "groups", error.said_of("").removeprefix("corpus.group")) from None
    if found is None:
        return ()
    rows = ScoredEvents(document=np.arange(len(groups)), values=events.values)
    members = found.group_of(rows)
    return (dataclasses.replace(found, group_of=lambda _: members),)


def _numbered(
    names: Sequence[str], count: int
) -> tuple[tuple[str, ...], Int[np.ndarray, " predictions"]]:
    """Returns the documents in the order in which they come, and the one of each prediction."""
    if not names:
        return tuple(map(str, range(1, count + 1))), np.arange(count)
    place: dict[str, int] = {}
    member = np.array([place.setdefault(name, len(place)) for name in names])
    return tuple(place), member


# --- arrays of any library -----------------------------------------------------------------------


def _judged(confidence: Any, correct: Any) -> Judged:
    given = np.asarray(as_array("confidence", _detached(confidence)))
    right = np.asarray(as_array("correct", _detached(correct)))
    checked = predictions(given, right)
    if not ((checked.correct == 0) | (checked.correct == 1)).all():
        wrong = checked.correct[(checked.correct != 0) & (checked.correct != 1)][0]
        raise ValueError(f"correct: {wrong:g} is not allowed; 0 or 1, or False or True")
    return Judged(checked.confidence.astype(checked.precision), checked.correct)


def _choices(log_probabilities: Any, label: Any) -> Choices:
    given = np.asarray(as_array("log_probabilities", _detached(log_probabilities)))
    logs = given.astype(np.float64)
    if logs.ndim != 2 or not len(logs):
        raise ValueError(f"log_probabilities: shape {logs.shape} must be [predictions, choices]")
    if np.isnan(logs).any() or (logs == np.inf).any():
        raise ValueError("log_probabilities: must be numbers below infinity; -inf is allowed")
    if (np.isfinite(logs).sum(-1) < 1).any():
        row = int(np.flatnonzero(~np.isfinite(logs).any(-1))[0])
        raise ValueError(f"log_probabilities: row {row} gives no choice a probability above 0")
    right = np.asarray(as_array("label", _detached(label)))
    if right.shape != logs.shape[:1]:
        raise ValueError(
            f"label: shape {right.shape} must be that of the predictions, {logs.shape[:1]}"
        )
    right = whole_numbers("label", right, logs.shape[1])
    chosen = logs[np.arange(len(right)), right]
    if (chosen == -np.inf).any():
        row = int(np.flatnonzero(chosen == -np.inf)[0])
        raise ValueError(f"label: choice {right[row]} of row {row} has probability 0: infinite nll")
    return Choices(logs, right)


def _names(name: str, values: Any, count: int) -> tuple[str, ...]:
    """Returns one name per prediction; none where nothing was given."""
    if values is None:
        return ()
    values = _detached(values)
    array = np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    if array.shape != (count,):
        raise ValueError(f"{name}: shape {array.shape} must be that of the predictions, ({count},)")
    found = array.tolist()
    if any(value is None or value != value for value in found):
        raise ValueError(f"{name}: has missing values; a name or a number is needed for each")
    return tuple(map(str, found))


def _detached(value: Any) -> Any:
    """Returns a tensor without its gradient, which a measurement does not need."""
    return value.detach() if hasattr(value, "detach") else value


def _digest(table: PredictionTable) -> str:
    """Returns the first 16 hex digits of the SHA-256 of the predictions."""
    digest = hashlib.sha256()
    for column in table.scores.arrays:
        digest.update(np.ascontiguousarray(column, np.float64).tobytes())
    for names in (table.documents, table.groups):
        digest.update(repr(names).encode())
    return digest.hexdigest()[:16]
