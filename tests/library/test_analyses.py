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
