"""Samples of lm-evaluation-harness are read as it logs them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibtrain.data.predictions.files import ColumnNames, read_predictions
from calibtrain.data.predictions.harness_samples import task_of
from calibtrain.data.predictions.table import Choices, PredictionTable
from calibtrain.errors import UserError

NAME = "samples_quiz_2025-01-31T10-11-12.123456.jsonl"
FOUR = [-3.25, -1.5, -7.0, -2.0]


def sample(logs: list[float], target: str, acc: float | None = None, **more: Any) -> dict[str, Any]:
    """A line as `evaluation_tracker.save_results_samples` writes it."""
    answers = [[str(value), "False"] for value in logs]
    scores = {} if acc is None else {"acc": acc}
    asked = {
        f"gen_args_{number}": {"arg_0": "Question", "arg_1": f" answer {number}"}
        for number in range(len(logs))
    }
    return {
        "doc_id": 0,
        "doc": {"passage": "p1", "subject": "law"},
        "target": target,
        "arguments": asked,
        "resps": [[answer] for answer in answers],
        "filtered_resps": answers,
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": "0",
        "prompt_hash": "0",
        "target_hash": "0",
        **scores,
        **more,
    }


def read(tmp_path: Path, *samples: dict[str, Any], **columns: str) -> PredictionTable:
    path = tmp_path / NAME
    path.write_text("".join(json.dumps(each) + "\n" for each in samples))
    return read_predictions([str(path)], ColumnNames(**columns))


@pytest.mark.parametrize(
    ("line", "label"),
    [
        (sample(FOUR, "1", 1.0), 1),
        (sample(FOUR, "2", 0.0), 2),
        (sample(FOUR, "3"), 3),  # a task that does not measure accuracy
        (sample(FOUR, "answer 2", 0.0), 2),
        (sample([-1.0, -2.0], "1", 0.0, arguments=[["Q", " 1"], ["Q", " 0"]]), 1),
        (sample([-1.0, -2.0], "1", 1.0, arguments=[["Q", " 1"], ["Q", " 0"]]), 0),  # by its text
        (sample([-4.0, -2.0], "same", 0.0, arguments=[["A", " same"], ["B", " same"]]), 0),
        (sample([-4.0, -2.0], "same", 1.0, arguments=[["A", " same"], ["B", " same"]]), 1),
    ],
)
def test_the_right_choice_is_found(line: dict[str, Any], label: int, tmp_path: Path) -> None:
    scores = read(tmp_path, line).scores
    assert isinstance(scores, Choices)
    assert scores.label.tolist() == [label]
    assert scores.log_probabilities[0].tolist() == [float(a[0]) for a in line["filtered_resps"]]


def test_choices_without_a_context_are_left_out(tmp_path: Path) -> None:
    arguments = [[context, f" {text}"] for context in ("Question", "") for text in "ab"]
    line = sample(FOUR, "1", 1.0, arguments=arguments)
    np.testing.assert_array_equal(read(tmp_path, line).scores.arrays[0], [FOUR[:2]])


def test_fields_of_questions_are_documents_and_groups(tmp_path: Path) -> None:
    lines = [sample(FOUR, "1", 1.0, doc_id=number) for number in range(3)]
    found = read(tmp_path, *lines, document="passage", group="subject")
    assert (found.name, found.documents, found.groups) == ("quiz", ["p1"] * 3, ["law"] * 3)
    assert not read(tmp_path, *lines).documents
    with pytest.raises(UserError, match=r"has no 'pasage'.*did you mean passage"):
        read(tmp_path, *lines, document="pasage")
    with pytest.raises(UserError, match="--label: 'target' is not used"):
        read(tmp_path, *lines, label="target")


def test_the_first_of_several_filters_is_read(tmp_path: Path) -> None:
    lines = [sample(FOUR, "1", 1.0), sample(FOUR, "2", 0.0, filter="other")]
    found = read(tmp_path, *lines)
    assert len(found.scores) == 1
    assert "filter none" in found.notes[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (sample(FOUR, "x", filtered_resps=["42"]), "'quiz' is not multiple choice.*42"),
        (sample(FOUR, "x", filtered_resps=[["-3.0", "True"]]), "scores a single continuation"),
        (sample(FOUR, "x", filtered_resps=["-120.5"]), "is not multiple choice"),
        (sample(FOUR, "0", 0.37), "acc is 0.37, neither 0 nor 1"),
        (sample(FOUR, "1", 0.0), 'target "1" does not agree with acc 0.0'),
        (sample(FOUR, "9", 0.0), 'target "9" names no choice'),
        (sample(FOUR, "[0, 2]", 0.0), "names no choice"),
        (sample([-1.0, float("nan")], "0", 1.0), "nan.* is not allowed"),
        (sample([-1.0, float("-inf")], "1", 0.0), "log-likelihood -inf"),
    ],
)
def test_what_is_not_multiple_choice_is_refused(
    line: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        read(tmp_path, line)
    assert f"{NAME}, line 1: " in str(raised.value)


def test_a_file_is_named_for_its_task() -> None:
    assert task_of(Path(NAME)) == "quiz"
    assert task_of(Path(f"{NAME}.gz")) == "quiz"
    assert task_of(Path("mine.jsonl")) == "mine.jsonl"
