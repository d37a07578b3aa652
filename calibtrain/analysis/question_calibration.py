"""Over questions: does a measure of consistency tell right answers from wrong ones, and from how
many samples on?

Measures that lie between 0 and 1 are read as the probability of being right (Brier score, ECE).
Every measure ranks the questions (AUROC, prediction-rejection ratio). Two probabilities of the
answer itself stand beside them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calibtrain.analysis.confidence_figures import (
    Weighted,
    area_under_roc,
    brier,
    calibration_error,
    over_questions,
    rejection_ratio,
)
from calibtrain.analysis.consistency import answer_consistency
from calibtrain.analysis.consistency_questions import SampledQuestion
from calibtrain.analysis.sample_consistency import SampleConsistency, choose, of_matrix
from calibtrain.runs.analysis_records import FigureRecord

SAMPLE_COUNTS = (2, 5, 10, 20, 40)
"""Numbers of samples that figures are given for, as far as there are samples."""
REFERENCE = "sequence_probability"
"""The confidence that all others are compared with."""
_RANKS = ("eccentricity", "eigenvalue", "cocoa")
"""Uncertainties without a scale of their own: more of them is less confidence."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question with its samples."""

    question: SampledQuestion
    consistency: SampleConsistency


@dataclasses.dataclass(frozen=True)
class Answered:
    """What the first samples of a question answer.

    Attributes:
        answer: the most frequent one; of ties, that of the most probable sample.
        right: whether it is accepted.
        confidence: by the name of the measure; more is more confident.
    """

    answer: str
    right: bool
    confidence: Mapping[str, float]


def answered(asked: Asked, samples: int) -> Answered | None:
    """Returns what the first samples of a question answer; None where none has an answer.

    Args:
        asked: the question.
        samples: how many of its samples are looked at.
    """
    own = asked.consistency
    extracted = own.extracted[:samples]
    information = [each.information_bits for each in own.samples[:samples]]
    chosen = choose(extracted, information)
    if chosen is None:
        return None
    answer, sample = extracted[chosen], own.samples[chosen]
    assert answer is not None
    counts = answer_consistency(extracted)
    found: dict[str, float | None] = {
        "agreement": counts.agreement,
        "held_out": counts.held_out,
        "entropy": counts.entropy,
        "entropy_by_samples": counts.entropy_by_samples,
        "fsd": counts.fsd,
    }
    if sample.information_bits is not None and sample.tokens:
        found[REFERENCE] = 2.0**-sample.information_bits
        found["token_probability"] = 2.0 ** (-sample.information_bits / sample.tokens)
    for name, whole in own.similarity.items():
        part = of_matrix(whole.matrix[:samples, :samples], information)
        found[f"degree_{name}"] = 1 - part.degree
        found[f"eccentricity_{name}"] = -part.eccentricity
        found[f"eigenvalue_{name}"] = -part.eigenvalue
        if part.cocoa is not None:
            found[f"cocoa_{name}"] = -part.cocoa[chosen]
    defined = {name: value for name, value in found.items() if value is not None}
    return Answered(answer, asked.question.is_right(answer), defined)


def calibration_over_questions(found: Sequence[Asked], *, seed: int = 0) -> dict[str, Any]:
    """Returns the figures of each measure by the number of samples, and a row per question.

    Questions of which no sample has an answer are counted (`undefined`): they are wrong in
    `accuracy`, and in no other figure.

    Args:
        found: the questions, each with as many samples.
        seed: of the intervals' resamples.
    """
    count = len(found[0].consistency.samples)
    counts = sorted({each for each in SAMPLE_COUNTS if each < count} | {count})
    by_count = {samples: [answered(each, samples) for each in found] for samples in counts}
    last = by_count[count]
    right = np.array([float(each is not None and each.right) for each in last])
    return {
        "questions": len(found),
        "samples": count,
        "sample_counts": counts,
        "undefined": last.count(None),
        "accuracy": _document(over_questions(_mean(right), len(found), seed=seed)),
        "figures": [
            row for samples in counts for row in _figures(samples, by_count[samples], seed)
        ],
        "rows": [_row(asked, own) for asked, own in zip(found, last, strict=True)],
    }


def _figures(samples: int, own: Sequence[Answered | None], seed: int) -> list[dict[str, Any]]:
    """Returns the figures of every measure for one number of samples."""
    defined = [each for each in own if each is not None]
    if not defined:
        return []
    names = [name for name in defined[0].confidence if all(name in e.confidence for e in defined)]
    columns = {name: np.array([each.confidence[name] for each in defined]) for name in names}
    correct = np.array([float(each.right) for each in defined])
    n = len(defined)

    def figure(of: Weighted) -> dict[str, Any] | None:
        return _document(over_questions(of, n, seed=seed))

    rows = []
    for name, confidence in columns.items():
        probability = not name.startswith(_RANKS)
        area = area_under_roc(confidence, correct)
        row: dict[str, Any] = {
            "measure": name,
            "samples": samples,
            "questions": n,
            "accuracy": figure(_mean(correct)),
            "mean": figure(_mean(confidence)) if probability else None,
            "brier": figure(brier(confidence, correct)) if probability else None,
            "ece": _document(calibration_error(confidence, correct)) if probability else None,
            "area_under_roc": figure(area),
            "prediction_rejection_ratio": figure(rejection_ratio(confidence, correct)),
            "brier_difference": None,
            "area_under_roc_difference": None,
        }
        if REFERENCE in columns and name != REFERENCE:
            other = columns[REFERENCE]
            row["area_under_roc_difference"] = figure(_less(area, area_under_roc(other, correct)))
            if probability:
                score = brier(confidence, correct)
                row["brier_difference"] = figure(_less(score, brier(other, correct)))
        rows.append(row)
    return rows


def _row(asked: Asked, own: Answered | None) -> dict[str, Any]:
    """Returns what `--json` says of a question."""
    counts = asked.consistency.counts
    return {
        "question": asked.question.question,
        "group": asked.question.group,
        "accepted": sorted(asked.question.accepted),
        "answer": None if own is None else own.answer,
        "correct": own is not None and own.right,
        "answers": [{"answer": name, "samples": number} for name, number in counts.answers],
        "without_answer": counts.without_answer,
        "confidence": None if own is None else dict(own.confidence),
    }


def _mean(values: np.ndarray) -> Weighted:
    return lambda weights: weights @ values / weights.sum(-1)


def _less(first: Weighted, second: Weighted) -> Weighted:
    return lambda weights: first(weights) - second(weights)


def _document(found: FigureRecord | None) -> dict[str, Any] | None:
    return None if found is None else found.document()
