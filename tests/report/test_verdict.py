"""What the first lines of a report claim: as much as intervals allow."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from folders import write_run
from pages import Page
from pyarrow import parquet

from calibtrain.report import write_evaluation_report, write_report
from calibtrain.report.documents import effective_documents, unlike_texts
from calibtrain.report.verdict import run_verdict
from calibtrain.runs.evaluation_records import EvaluationRecord

GOLDEN = Path(__file__).parent.parent / "runs" / "golden"


def evaluation(gap: tuple[float, ...], ece: tuple[float, ...], **more: Any) -> EvaluationRecord:
    """An evaluation with a signed gap and an ECE: the figure and the ends of its interval."""
    tree = EvaluationRecord.read(GOLDEN / "evaluation.json").document()
    found = {
        key: {"lower": ends[1], "upper": ends[2], "method": "bca"}
        for key, ends in (("signed_gap", gap), ("ece", ece))
        if ends[1:]
    }
    tree |= {"signed_gap": gap[0], "ece": ece[0], "intervals": found, **more}
    return EvaluationRecord.parse(tree, "made")


@pytest.mark.parametrize(
    ("gap", "ece", "said"),
    [
        ((0.02, 0.01, 0.03), (0.02, 0.01, 0.03), "the model is over-confident on average"),
        ((-0.02, -0.03, -0.01), (0.02, 0.01, 0.03), "the model is under-confident on average"),
        ((0.02, -0.01, 0.03), (0.02, 0.01, 0.03), "the model is miscalibrated"),
        ((0.02, -0.01, 0.03), (0.02, 0.0, 0.03), "no miscalibration was detected"),
        ((0.02,), (0.02,), "how sure that is cannot be told"),
    ],
)
def test_a_run_is_called_what_its_intervals_exclude(
    gap: tuple[float, ...], ece: tuple[float, ...], said: str
) -> None:
    claims = ("over-confident", "under-confident", "is miscalibrated", "no miscalibration")
    text = run_verdict(evaluation(gap, ece))
    assert said in text
    assert sum(claim in text for claim in claims) == (1 if gap[1:] else 0)


def test_the_effective_number_of_documents_is_kishs(tmp_path: Path) -> None:
    write_run(tmp_path / "run", evaluations=("test",))
    (path,) = (tmp_path / "run" / "evaluations").glob("*.json")
    assert effective_documents(EvaluationRecord.read(path)) is None, "no table, and none made up"
    equal, unequal = [7.0] * 59, [700.0, *[1.0] * 58]
    for events, effective in ((equal, 59.0), (unequal, 758**2 / (700**2 + 58))):
        parquet.write_table(pa.table({"tokens": events}), path.with_suffix(".parquet"))
        assert effective_documents(EvaluationRecord.read(path)) == pytest.approx(effective)
        said = Page(write_report(tmp_path / "run")).findings()
        assert ("worth 1.2 of equal length" in said) == (effective < 20)
    tree = json.loads(path.read_text()) | {"effective_documents": 33.0}
    path.write_text(json.dumps(tree))
    assert effective_documents(EvaluationRecord.read(path)) == 33.0


def test_a_fine_tuning_says_that_it_is_one(tmp_path: Path) -> None:
    write_run(tmp_path / "run", evaluations=("test",))
    (tmp_path / "run" / "config.yaml").write_text(
        "finetune: {run: runs/<base>, objective: dpo, paths: [pairs.jsonl], beta: 0.1, epochs: 2}"
    )
    path = tmp_path / "run" / "run.json"
    started = {"started_from": {"step": 400, "sha256": "ab"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | started))
    line = {"step": 50, "train/bytes": 5, "eval/ece": 0.1, "eval/preference/loss": 0.5}
    line |= {"eval/preference/accuracy": 0.75, "eval/answers/ece": 0.2}
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    page = Page(write_report(tmp_path / "run"))
    assert "fine-tuning" in page.text
    assert "runs/<base>, step 400" in page.text
    loss, accuracy = page.plots_of("preferences")
    # Before the first step the model is its own reference: -log sigmoid(0), and a coin's guess.
    assert (loss["data"][0]["x"], accuracy["data"][0]["y"]) == ([0, 50], [0.5, 0.75])
    assert loss["data"][0]["y"] == pytest.approx([0.6931471805599453, 0.5])


def test_predictions_alone_have_a_page(tmp_path: Path) -> None:
    ends = (0.02, 0.01, 0.03)
    record = evaluation(ends, ends, event="prediction", corpus="mine.csv", documents=7)
    page = Page(write_evaluation_report(record, tmp_path / "page.html"))
    assert "In mine.csv, the model is over-confident on average" in page.findings()
    assert "Only 7 documents were scored" in page.findings()
    assert page.figures()[:2] == ["reliability", "curves"]
    assert page.results == record.document()


def test_arms_that_read_other_text_are_said_to() -> None:
    ends = (0.02, 0.01, 0.03)
    sample = {"documents": 4, "of_documents": 9, "bytes": 80, "of_bytes": 900, "cut": True}
    one = evaluation(ends, ends, sample=sample | {"text_hash": "a"})
    other = evaluation(ends, ends, sample=sample | {"text_hash": "b"})
    assert unlike_texts([one, one]) == []
    assert "not scored on the same text" in unlike_texts([one, other])[0]
