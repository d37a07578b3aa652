"""Analyses of a run in a program: objects that hold what the files say."""

import shutil
from pathlib import Path

import pytest

import calibtrain as ct
from calibtrain.errors import UserError
from calibtrain.runs.analysis_records import MemoryRecord


@pytest.fixture
def run(tmp_path: Path, finished_run: Path) -> ct.library.Run:
    return ct.open_run(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.mark.long
def test_an_analysis_is_a_table_of_its_file(run: ct.library.Run) -> None:
    found = run.memory(
        prompts=4, prefix=20, generated=60, positions=20, longest=4, progress=None, seed=1
    )
    assert found.path == run.folder / "analysis" / "memory-markov-test.json"
    record = MemoryRecord.read(found.path)
    assert found.record.document() == record.document()
    assert record.protocol["seed"] == 1
    assert found.table["tokens"].tolist() == [1, 2, 4]
    bits = [row.bits_per_byte for row in record.rows]
    assert found.table["bits_per_byte"].tolist() == [each.estimate for each in bits if each]
    assert found.table["bits_per_byte_upper"].tolist() == [each.upper for each in bits if each]
    assert repr(found).startswith("MemoryAnalysis of ")
    assert len(repr(found).splitlines()) == 5


def test_a_trace_has_a_row_for_each_token(run: ct.library.Run) -> None:
    found = run.trace("ab", band=False, max_bytes=20, seed=3, sampling={"top_k": 5})
    generated = run.generate("ab", max_bytes=20, seed=3, top_k=5)
    assert found.text == generated.texts[0]
    assert found.trace["token"].tolist() == generated.trace["token"].tolist()
    given = run.trace(text="abab", band=False)
    assert given.finish_reason == "given"
    assert sum(given.trace["bytes"]) == 4
    assert "bits/byte" in repr(given)


def test_what_is_no_setting_is_refused_by_name(run: ct.library.Run) -> None:
    with pytest.raises(UserError, match=r"^promts: is not a setting of entropy; there are prompts"):
        run.entropy(promts=3)
    with pytest.raises(UserError, match=r"^text: is traced as it is; leave out prompt"):
        run.trace("a", text="b")
    with pytest.raises(UserError, match=r"^steps: is not a setting of trace"):
        run.trace("a", steps=3)
    with pytest.raises(UserError, match=r"^--calibrate: 'all' is not known"):
        run.entropy(calibrate="all", progress=None)


@pytest.mark.long
def test_samples_are_measured_as_the_command_does(run: ct.library.Run, tmp_path: Path) -> None:
    found = run.consistency("a", samples=6, max_tokens=8, similarities=["jaccard"], seed=2)
    again = run.generate("a", samples=6, max_tokens=8, seed=2)
    assert found.texts == again.texts
    assert found.matrix.shape == (6, 6)
    assert len(found.samples) == len(found) == 6
    assert sum(found.answers["samples"]) == 6 - found.document["without_answer"]
    assert repr(found).startswith("<Consistency 6 samples")
    assert ct.figures.sample_agreement(found.document).data[0].type == "heatmap"
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "a", "answer": "b"}\n{"question": "b", "answer": "a"}\n')
    asked = run.consistency_over_questions(
        questions, samples=3, max_tokens=4, extract="regex:.", similarities=["jaccard"]
    )
    assert (asked.questions, len(asked.rows)) == (2, 2)
    assert {"measure", "brier", "brier_lower", "brier_upper"} <= set(asked.table.columns)
    assert repr(asked).startswith("QuestionConsistency: 2 questions, 3 samples each")


def test_what_is_no_setting_of_consistency_is_refused(run: ct.library.Run) -> None:
    with pytest.raises(UserError, match=r"^steps: is not a setting of consistency; there are seed"):
        run.consistency("a", steps=3)
    with pytest.raises(UserError, match=r"^sampling: temperature: 0 is not allowed"):
        run.consistency("a", sampling={"temperature": 0})
    with pytest.raises(UserError, match=r"^samples: 0 is not allowed"):
        run.consistency("a", samples=0)
