"""Questions and the calibration of each measure over them."""

import json
from pathlib import Path

import numpy as np
import pytest

from calibtrain.analysis.answers import extraction_of
from calibtrain.analysis.confidence_figures import (
    area_under_roc,
    brier,
    calibration_error,
    equal_mass_tables,
    over_questions,
    rejection_ratio,
)
from calibtrain.analysis.consistency_questions import SampledQuestion, questions_to_sample
from calibtrain.analysis.question_calibration import Asked, answered, calibration_over_questions
from calibtrain.analysis.sample_consistency import Sample, measure_samples
from calibtrain.errors import UserError
from calibtrain.metrics import expected_calibration_error
from calibtrain.metrics.ranking import area_under_roc as theirs
from calibtrain.metrics.ranking import prediction_rejection_ratio


def asked(texts: list[str], right: str, bits: list[float] | None = None) -> Asked:
    """A question with its samples."""
    known = bits or [4.0] * len(texts)
    samples = [
        Sample(text, list(text), own, 2, "end") for text, own in zip(texts, known, strict=True)
    ]
    found = measure_samples(samples, extraction_of("first-line"), ["jaccard"])
    return Asked(SampledQuestion("q", "q", frozenset([right])), found)


def test_a_question_is_answered_by_the_first_samples():
    one = asked(["a", "b", "b", ""], "b", [1.0, 3.0, 2.0, 9.0])
    first = answered(one, 2)
    assert first is not None
    assert (first.answer, first.right) == ("a", False)  # a tie: the more probable sample
    last = answered(one, 4)
    assert last is not None
    assert (last.answer, last.right) == ("b", True)
    assert last.confidence["agreement"] == 0.5
    assert last.confidence["fsd"] == 0.25
    assert last.confidence["sequence_probability"] == 0.25  # 2 bits
    assert last.confidence["token_probability"] == 0.5  # of two tokens
    assert last.confidence["cocoa_jaccard"] == pytest.approx(-2.0 * (1 - 1 / 3))


def test_questions_without_an_answer_are_counted_and_wrong():
    found = calibration_over_questions(
        [asked(["a", "a"], "a"), asked(["", "."], "b"), asked(["c", "b"], "b")]
    )
    assert (found["questions"], found["undefined"], found["sample_counts"]) == (3, 1, [2])
    assert found["accuracy"]["estimate"] == pytest.approx(1 / 3)  # of c and b, c came first
    assert {row["questions"] for row in found["figures"]} == {2}
    assert found["rows"][1]["answer"] is None
    assert found["rows"][1]["confidence"] is None
    json.dumps(found)


def test_where_no_question_has_an_answer_there_are_no_figures():
    found = calibration_over_questions([asked(["", ""], "a")] * 6)
    assert (found["undefined"], found["figures"], found["accuracy"]["estimate"]) == (6, [], 0.0)


def test_figures_are_those_of_the_metrics():
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, 6, 60) / 5
    correct = (rng.random(60) < confidence).astype(float)
    ones = np.ones((1, 60))
    assert area_under_roc(confidence, correct)(ones)[0] == pytest.approx(
        theirs(confidence, correct)
    )
    assert rejection_ratio(confidence, correct)(ones)[0] == pytest.approx(
        prediction_rejection_ratio(confidence, correct)
    )
    assert brier(confidence, correct)(ones)[0] == pytest.approx(
        np.mean((confidence - correct) ** 2)
    )
    found = calibration_error(confidence, correct)
    ece = expected_calibration_error(confidence, correct, bins=10, scheme="mass")
    assert found.estimate == pytest.approx(float(ece))
    assert found.lower is not None
    assert found.upper is not None
    assert 0 <= found.lower <= found.upper <= 1


def test_bins_hold_equal_mass_whatever_the_ties():
    tables = equal_mass_tables(np.array([0.5] * 7 + [1.0] * 6), np.ones(13))
    np.testing.assert_allclose(tables.sum(0)[:, 0], 1.3)
    np.testing.assert_allclose(tables.sum(1)[:, 0], 1.0)


def test_a_weight_of_two_is_two_questions():
    confidence, correct = np.array([0.1, 0.7, 0.4, 0.7]), np.array([0.0, 1.0, 1.0, 0.0])
    weights = np.array([[2, 1, 0, 3]])
    again = np.repeat(np.arange(4), weights[0])
    for figure in (area_under_roc, rejection_ratio, brier):
        one = figure(confidence, correct)(weights.astype(float))
        other = figure(confidence[again], correct[again])(np.ones((1, 6)))
        assert one == pytest.approx(other)


def test_a_figure_that_is_not_defined_is_none_and_few_questions_have_no_interval():
    right = np.ones(8)
    assert over_questions(area_under_roc(right, right), 8) is None
    assert over_questions(rejection_ratio(right, right), 8) is None
    few = over_questions(brier(np.array([0.5, 1.0]), np.array([1.0, 1.0])), 2)
    assert few is not None
    assert (few.estimate, few.lower) == (0.125, None)


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_file_of_questions_is_read_with_choices_and_groups(tmp_path):
    file = write(
        tmp_path / "q.jsonl",
        {"question": "2+2?", "answer": ["4", "four"], "group": "sums"},
        {"question": "And 3?", "answer": "Rome", "group": "towns"},
    )
    (first, second), notes = questions_to_sample(file, "first-line", "Q: {question}\nA:")
    assert notes == []
    assert (first.prompt, first.group) == ("Q: 2+2?\nA:", "sums")
    assert first.is_right("four")
    assert not first.is_right(None)
    assert second.accepted == {"rome"}
    ((lettered,), _) = questions_to_sample(
        write(
            tmp_path / "c.jsonl",
            {"question": "Which?", "answer": "Rome", "choices": ["Oslo", "Rome"]},
        ),
        "letter",
        "{question}\n{choices}\nAnswer:",
    )
    assert lettered.accepted == {"B"}
    assert lettered.prompt == "Which?\nA) Oslo\nB) Rome\nAnswer:"
    ((found,), _) = questions_to_sample(
        write(tmp_path / "r.jsonl", {"question": "a", "answer": "Rome"}), "regex:is (.*)"
    )
    assert found.accepted == {"Rome"}


@pytest.mark.parametrize(
    ("row", "extract", "said"),
    [
        ({"question": "a"}, "whole", "line 1: has no 'answer'; keys there: question"),
        ({"answer": "a"}, "whole", "line 1: has no 'question'; keys there: answer"),
        ({"question": 3, "answer": "b"}, "whole", "question: 3 is not allowed; a text"),
        ({"question": "a", "answer": []}, "whole", r"answer: \[\] is not allowed"),
        (
            {"question": "a", "answer": "Rome"},
            "number",
            "--extract number finds no answer in 'Rome'",
        ),
        ({"question": "a", "answer": "x", "choices": ["y", "z"]}, "letter", "no choice is among"),
        ({"question": "a", "answer": "x", "choices": list("abcdefghx")}, "letter", "at most 8"),
    ],
)
def test_a_line_that_does_not_hold_what_is_needed_is_named(tmp_path, row, extract, said):
    with pytest.raises(UserError, match=said):
        questions_to_sample(write(tmp_path / "q.jsonl", row), extract)


def test_a_file_or_template_that_asks_nothing_is_refused(tmp_path):
    file = write(tmp_path / "q.jsonl", {"question": "a", "answer": "b"})
    with pytest.raises(UserError, match="holds no question"):
        questions_to_sample(write(tmp_path / "none.jsonl"), "whole")
    with pytest.raises(UserError, match=r"absent\.jsonl"):
        questions_to_sample(tmp_path / "absent.jsonl", "whole")
    with pytest.raises(UserError, match=r"--template: 'Q:' lacks \{question\}"):
        questions_to_sample(file, "whole", "Q:")
    with pytest.raises(UserError, match="has no choices, which --template asks for"):
        questions_to_sample(file, "whole", "{question} {choices}")
