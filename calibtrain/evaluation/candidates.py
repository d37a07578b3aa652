"""Candidate strings as an event space: the confidence of an answer among the candidates.

The confidence of a candidate is the softmax of the candidates' log-probabilities, each summed over
the whole string without normalisation by length, divided by a temperature. Candidates are the same
strings for every vocabulary. Two kinds of events are measured, and their signatures differ:

- *every candidate* (`candidate.every`): each candidate of a question is an event that is right or
  wrong, as in the paper;
- *top candidate* (`candidate.top`): a question is one event, the most probable candidate.

References:
    Jiang et al., "How Can We Know When Language Models Know? On the Calibration of Language Models
        for Question Answering", TACL 2021.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.data.predictions.table import Choices, Judged, PredictionTable
from calibtrain.evaluation.event_space import EventSpace
from calibtrain.evaluation.figure_intervals import FEWEST_DOCUMENTS, interval_fields
from calibtrain.evaluation.predictions import measured_as
from calibtrain.evaluation.result import Evaluation
from calibtrain.evaluation.strata import CONFIDENCE, ENTROPY
from calibtrain.fitting.root_finding import FittedTemperature, fit_temperature
from calibtrain.metrics.ece_intervals import calibration_error_difference
from calibtrain.metrics.intervals import Interval, document_tables
from calibtrain.metrics.jackknife import student_figures

BINS = 20
"""Equal-width bins of the paper's ECE."""

Events = tuple[
    Float[np.ndarray, " events"], Float[np.ndarray, " events"], Int[np.ndarray, " events"]
]
"""Confidence, correctness and question of each event."""


@dataclasses.dataclass(frozen=True)
class Candidates:
    """The candidates of questions, scored.

    Attributes:
        names: of each question.
        scores: log-probabilities of its candidates in nats, for each paraphrase of the question:
            [paraphrases, candidates] a question.
        right: which of its candidates are right.
        groups: of each question; empty where there are none.
    """

    names: Sequence[str]
    scores: Sequence[Float[np.ndarray, "paraphrases candidates"]]
    right: Sequence[Bool[np.ndarray, " candidates"]]
    groups: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names)

    def chosen(self, places: Sequence[int]) -> "Candidates":
        """Returns some of the questions."""
        return Candidates(
            [self.names[i] for i in places],
            [self.scores[i] for i in places],
            [self.right[i] for i in places],
            [self.groups[i] for i in places] if self.groups else (),
        )

    def at(self, temperature: float) -> "Candidates":
        """Returns the same with the log confidences at a temperature as scores."""
        logs = self.log_confidence(temperature)
        scores = [logs[i : i + 1, : len(own)] for i, own in enumerate(self.right)]
        return dataclasses.replace(self, scores=scores)

    def log_confidence(self, temperature: float = 1.0) -> Float[np.ndarray, "questions most"]:
        """Returns the log of each candidate's confidence; -inf where a question has fewer."""
        found = np.full((len(self), max(map(len, self.right))), -np.inf)
        for row, scores in zip(found, self.scores, strict=True):
            own = candidate_log_confidence(scores, temperature)
            row[: len(own)] = own
        return found

    def top(self, temperature: float = 1.0) -> Events:
        """Returns the most probable candidate of each question; of equal ones the first."""
        logs = self.log_confidence(temperature)
        right = [float(own[i]) for own, i in zip(self.right, logs.argmax(1), strict=True)]
        return np.exp(logs.max(1)), np.array(right), np.arange(len(self))

    def every(self, temperature: float = 1.0) -> Events:
        """Returns every candidate of every question."""
        logs = self.log_confidence(temperature)
        flat = np.concatenate([logs[i, : len(own)] for i, own in enumerate(self.right)])
        right = np.concatenate(list(self.right)).astype(np.float64)
        owner = np.repeat(np.arange(len(self)), [len(own) for own in self.right])
        return np.exp(flat), right, owner


def candidate_log_confidence(
    scores: Float[np.ndarray, "paraphrases candidates"], temperature: float = 1.0
) -> Float[np.ndarray, " candidates"]:
    """Returns log(mean over paraphrases of softmax(scores / T)) of a question's candidates.

    A paraphrase after which every candidate has probability 0 says nothing of them, and is left out
    of the mean.

    Args:
        scores: log-probabilities of the candidates after each paraphrase, in nats; -inf for
            probability 0.
        temperature: T.

    Raises:
        ValueError: where every candidate has probability 0 after every paraphrase.

    Example:
        >>> scores = np.log([[0.2, 0.1, 0.1], [0.1, 0.3, 0.1]])
        >>> print(np.exp(candidate_log_confidence(scores)).round(3))
        [0.35  0.425 0.225]
    """
    scaled = np.asarray(scores, np.float64)
    scaled = scaled[possible_after(scaled)] / temperature
    if not len(scaled):
        raise ValueError("scores: every candidate has probability 0 after every paraphrase")
    scaled = scaled - scaled.max(-1, keepdims=True)
    logs = scaled - np.log(np.exp(scaled).sum(-1, keepdims=True))
    top = logs.max(0)
    base = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return base + np.log(np.exp(logs - base).mean(0))


def possible_after(
    scores: Float[np.ndarray, "paraphrases candidates"],
) -> Bool[np.ndarray, " paraphrases"]:
    """Returns after which paraphrases some candidate has a probability above 0."""
    found: Bool[np.ndarray, " paraphrases"] = np.any(scores > -np.inf, axis=-1)
    return found


def evaluate_candidates(
    given: Candidates,
    about: Mapping[str, Any],
    *,
    protocol: str,
    temperature: float = 1.0,
    bins: int = BINS,
    **made: Any,
) -> tuple[Evaluation, Evaluation]:
    """Returns the evaluations of the top candidates and of every candidate.

    Intervals are over questions.

    Args:
        given: the candidates.
        about: corpus (the name of the questions), corpus_hash (of questions and templates), step,
            tokenizer_hash, notes.
        protocol: how candidates were scored, as signatures say it: letters, digits and dots.
        temperature: divides the log-probabilities.
        bins: equal-width bins of the ECE.
        made: context, and the temperature head of the network, as `Measurement.evaluation` does.

    Raises:
        UserError: for bins or a number of groups that are not allowed.
    """
    logs = given.log_confidence(temperature)
    facts = {"split": "all", **{key: about[key] for key in ("step", "tokenizer_hash")}}
    base = {
        "name": about["corpus"],
        "content_hash": about["corpus_hash"],
        "notes": about.get("notes", ()),
    }
    made = {**made, "temperature": temperature}
    single = all(own.sum() == 1 for own in given.right)
    if single:
        chosen = [logs[i, int(own.argmax())] for i, own in enumerate(given.right)]
        if without := int(np.isneginf(chosen).sum()):
            single = False
            base["notes"] = (
                *base["notes"],
                f"{without} questions: the model gives the right candidate probability 0; the nll "
                "would be infinite, and the figures that need whole distributions are left out",
            )
    top: Choices | Judged
    if single:
        top = Choices(logs, np.array([int(own.argmax()) for own in given.right]))
    else:  # an answer that none of the candidates is has no probability
        confidence, correct, _ = given.top(temperature)
        top = Judged(confidence, correct)
    strata = (CONFIDENCE, ENTROPY) if single else (CONFIDENCE,)
    documents = tuple(given.names)
    first = measured_as(
        PredictionTable(scores=top, documents=documents, groups=tuple(given.groups), **base),
        EventSpace("candidate", strata, precision=np.float64, normalised=f"top.{protocol}"),
        facts,
        bins=bins,
        **made,
    )
    confidence, correct, owner = given.every(temperature)
    every = PredictionTable(
        scores=Judged(confidence, correct),
        documents=[documents[i] for i in owner],
        groups=[given.groups[i] for i in owner] if given.groups else (),
        **base,
    )
    space = EventSpace(
        "candidate",
        (CONFIDENCE,),
        confidence="each",
        precision=np.float64,
        normalised=f"every.{protocol}",
    )
    return first, measured_as(every, space, facts, bins=bins, **made)


def fit_candidate_temperature(given: Candidates) -> FittedTemperature:
    """Returns the temperature of the lowest nll of right candidates, each paraphrase by itself.

    Questions whose candidates are all wrong are left out.

    Args:
        given: the candidates of questions that are not measured afterwards.

    Raises:
        ValueError: where no question has a right candidate.

    Example:
        >>> scores = [np.log([[0.9, 0.1]]) for _ in range(4)]  # sure, and right three times in four
        >>> right = [np.array([i < 3, i == 3]) for i in range(4)]
        >>> found = fit_candidate_temperature(Candidates("abcd", scores, right))
        >>> print(round(found.temperature, 3), round(float(np.log(9) / np.log(3)), 3))
        2.0 2.0
    """
    known = [
        (scores, own) for scores, own in zip(given.scores, given.right, strict=True) if own.any()
    ]
    if not known:
        raise ValueError("given: no question has a right candidate")

    def likelihood(temperature: float) -> tuple[float, float]:
        nll, entropy = [], []
        for scores, own in known:
            for each in scores[possible_after(scores)]:
                logs = candidate_log_confidence(each[None], temperature)
                p = np.exp(logs)
                nll.append(-math.log(max(float(p[own].sum()), 1e-300)))
                entropy.append(-float((p * np.where(p > 0, logs, 0.0)).sum()))
        return float(np.mean(nll)), float(np.mean(entropy))

    return fit_temperature(likelihood)


def error_differences(
    after: Candidates, before: Candidates, *, bins: int = BINS
) -> dict[str, Interval]:
    """Returns the ECE after something less that before it, of the top and of every candidate.

    Both are of the same questions, of which there must be two. Intervals are over questions.
    """

    def table(events: Events) -> Float[np.ndarray, "questions bins 3"]:
        return document_tables(*events, len(before), bins=bins)

    return {
        "top_candidate": calibration_error_difference(table(after.top()), table(before.top())),
        "every_candidate": calibration_error_difference(
            table(after.every()), table(before.every())
        ),
    }


def confidence_gaps(given: Candidates, temperature: float = 1.0) -> list[dict[str, Any]]:
    """Returns the gap between the mean confidence when right and when wrong: pooled, then by group.

    The gap is a split by the outcome, and no error of calibration: `calibrated` is the gap that
    these confidences would have if each were right as often as it says, sum c^2 / sum c - sum c (1
    - c) / sum (1 - c). A group without right or without wrong answers has none.

    Args:
        given: the candidates; a question's answer is the most probable.
        temperature: divides the log-probabilities.

    Returns:
        A row for all questions (`label` is None), and one for each group: questions, right,
        when_right, when_wrong, gap, its interval over questions (lower, upper), and calibrated.
    """
    confidence, right, _ = given.top(temperature)
    members: dict[str | None, np.ndarray] = {None: np.arange(len(given))}
    for label in sorted(set(given.groups)):
        members[label] = np.flatnonzero(np.array(given.groups) == label)
    return [{"label": label, **_gap(confidence[own], right[own])} for label, own in members.items()]


def _gap(
    confidence: Float[np.ndarray, " questions"], right: Float[np.ndarray, " questions"]
) -> dict[str, Any]:
    c, y = confidence, right
    sums = np.column_stack([np.ones_like(c), y, c * y, c * (1 - y), c, c * c])

    def when_right(s: Any) -> Any:
        return s[:, 2] / s[:, 1]

    def when_wrong(s: Any) -> Any:
        return s[:, 3] / (s[:, 0] - s[:, 1])

    def calibrated(s: Any) -> Any:
        return s[:, 5] / s[:, 4] - (s[:, 4] - s[:, 5]) / (s[:, 0] - s[:, 4])

    figures = {
        "when_right": when_right,
        "when_wrong": when_wrong,
        "gap": lambda s: when_right(s) - when_wrong(s),
        "calibrated": calibrated,
    }
    total = sums.sum(0)[None]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {name: float(figure(total)[0]) for name, figure in figures.items()}
        ends = None
        if len(c) >= FEWEST_DOCUMENTS:
            ends = student_figures(sums, {"gap": figures["gap"]}).get("gap")
    return {
        "questions": len(c),
        "right": int(y.sum()),
        **{name: value if math.isfinite(value) else None for name, value in found.items()},
        "lower": None if ends is None else interval_fields(ends)["lower"],
        "upper": None if ends is None else interval_fields(ends)["upper"],
    }
