"""Records: files that earlier code wrote are read, and written again as they were."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from calibtrain.errors import UserError
from calibtrain.runs.evaluation_records import STRATA, EvaluationRecord
from calibtrain.runs.record import FileRecord
from calibtrain.runs.records import HeadComparisonRecord, RunRecord, StudyRecord
from calibtrain.runs.seeds import summarise
from calibtrain.storage.documents import CHECKSUM

GOLDEN = Path(__file__).parent / "golden"
FILES: dict[str, type[FileRecord]] = {
    "run.json": RunRecord,
    "run-imported.json": RunRecord,
    "run-finetuned.json": RunRecord,
    "evaluation.json": EvaluationRecord,
    "evaluation-byte.json": EvaluationRecord,
    "evaluation-midway.json": EvaluationRecord,
    "evaluation-answers.json": EvaluationRecord,
    "ablation.json": StudyRecord,
    "comparison.json": HeadComparisonRecord,
}
"""Written before there were records, by training, importing, fine-tuning and comparing heads."""


def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / name).read_text())


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_read_and_written_is_the_same(name: str, tmp_path: Path) -> None:
    record = FILES[name].read(GOLDEN / name)
    assert record.document() == golden(name)
    record.write(tmp_path / name)
    if FILES[name].SEALED:  # what earlier versions wrote has no checksum
        written = json.loads((tmp_path / name).read_text())
        assert list(written.items()) == [*golden(name).items(), (CHECKSUM, written[CHECKSUM])]
        assert FILES[name].read(tmp_path / name).document() == golden(name)
    else:
        assert (tmp_path / name).read_bytes() == (GOLDEN / name).read_bytes()


@pytest.mark.parametrize("name", [name for name, kind in FILES.items() if kind.SEALED])
def test_a_changed_digit_is_noticed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    FILES[name].read(GOLDEN / name).write(path)
    text = path.read_text()
    for digit in list(re.finditer(r"\d", text))[20::97]:
        other = str((int(digit[0]) + 1) % 10)
        changed = text[: digit.start()] + other + text[digit.end() :]
        if json.loads(changed) == json.loads(text):  # the seventeenth digit of a number
            continue
        path.write_text(changed)
        with pytest.raises(UserError, match="is damaged"):
            FILES[name].read(path)


@pytest.mark.parametrize("name", FILES)
def test_unknown_keys_are_kept_where_they_stand(name: str) -> None:
    tree = {"first": [1, {"a": None}], **golden(name), "text": "a key called as a method is"}
    record = FILES[name].parse(tree, name)
    assert list(record.document().items()) == list(tree.items())
    assert record.get("text") == tree["text"]
    assert "first" in record
    assert "absent" not in record


def test_fields_are_what_the_file_says() -> None:
    run = RunRecord.read(GOLDEN / "run.json")
    found = golden("run.json")
    assert run.status == "done"
    assert run.corpus.splits["test"].bytes == found["corpus"]["splits"]["test"]["bytes"]
    assert run.parameters.total == found["parameters"]["total"]
    imported = RunRecord.read(GOLDEN / "run-imported.json")
    assert (imported.status, imported.memory.optimizer) == ("imported", None)
    assert imported.imported is not None
    evaluation = EvaluationRecord.read(GOLDEN / "evaluation.json")
    found = golden("evaluation.json")
    figures = {k: v for k, v in found.items() if isinstance(v, (int, float))}
    assert evaluation.numbers == figures
    interval = evaluation.interval("ece")
    assert interval is not None
    assert interval.lower == found["intervals"]["ece"]["lower"]
    assert set(evaluation.strata) <= set(STRATA)
    assert [row.name for row in evaluation.strata["positions"]] == [
        row["label"] for row in found["positions"]
    ]
    assert EvaluationRecord.read(GOLDEN / "evaluation-byte.json").event == "byte"
    heads = HeadComparisonRecord.read(GOLDEN / "comparison.json")
    assert [row.head for row in heads.corpora[0].rows] == ["none", "global", "linear", "vector"]


LATER = ("event", "temperature", "limit", "intervals", "bounds", "signatures")
TABLES_LATER = ("smooth_reliability", "risk_coverage", "positions", "entropy_bands", "groups")


def test_files_without_what_came_later_are_read() -> None:
    tree = {k: v for k, v in golden("evaluation.json").items() if k not in LATER + TABLES_LATER}
    for row in tree["frequency_deciles"]:
        del row["label"], row["intervals"]
    record = EvaluationRecord.parse(tree, "old")
    assert record.document() == tree
    assert (record.event, record.temperature, record.tempered) == ("token", 1.0, "")
    assert record.interval("ece") is record.signature("ece") is None
    assert [row.name for row in record.strata["frequency_deciles"]] == [
        str(decile) for decile in range(1, 11)
    ]
    study = golden("ablation.json")
    for row in study["summary"]:
        del row["signatures"]
    for arm in study["arms"]:
        del arm["vocab_size"]
    assert StudyRecord.parse(study, "old").document() == study
    run = golden("run.json")
    for key in ("seconds",):
        del run[key]
    del run["tokenizer"]["bytes_per_token"], run["corpus"]["entropy_bits_per_byte"]
    assert RunRecord.parse(run, "old").document() == run


def test_the_summary_of_a_study_is_that_of_its_arms() -> None:
    study = StudyRecord.read(GOLDEN / "ablation.json")
    assert [row.document() for row in summarise(study.arms)] == golden("ablation.json")["summary"]


def test_a_figure_that_one_seed_lacks_has_no_mean() -> None:
    study = golden("ablation.json")
    study["arms"][0]["evaluations"]["markov-test"]["area_under_roc"] = None
    rows = summarise(StudyRecord.parse(study, "study").arms)
    (first,) = [
        row
        for row in rows
        if row.evaluation == "markov-test" and row.vocab_size == study["arms"][0]["vocab_size"]
    ]
    others = [row for row in rows if row is not first]
    assert "area_under_roc" not in first.mean
    assert all("area_under_roc" in row.mean for row in others)


def changed(tree: Any, path: tuple[str | int, ...], value: Any) -> Any:
    inside = tree
    for part in path[:-1]:
        inside = inside[part]
    if value is KeyError:
        del inside[path[-1]]
    else:
        inside[path[-1]] = value
    return tree


@pytest.mark.parametrize(
    ("name", "path", "value", "said"),
    [
        ("run.json", ("status",), KeyError, "status is missing"),
        ("run.json", ("step",), 1.5, "step is 1.5, not a whole number"),
        ("run.json", ("step",), True, "step is true, not a whole number"),
        ("run.json", ("corpus",), [], "corpus is [], not an object"),
        (
            "run.json",
            ("corpus", "splits", "test", "bytes"),
            "many",
            'corpus.splits.test.bytes is "many", not a whole number',
        ),
        ("ablation.json", ("arms",), {}, "arms is {}, not a list"),
        ("ablation.json", ("arms", 1), None, "arms.1 is null, not an object"),
        ("ablation.json", ("arms", 1, "folder"), KeyError, "arms.1.folder is missing"),
        (
            "evaluation.json",
            ("intervals", "ece", "lower"),
            None,
            "intervals.ece.lower is null, not a number",
        ),
        ("evaluation.json", ("bits_per_byte",), KeyError, "bits_per_byte is missing"),
        ("evaluation.json", ("bits_per_byte",), None, "bits_per_byte is null, not a number"),
        (
            "comparison.json",
            ("corpora", 0, "rows", 2, "differences", "nll", "upper"),
            "x",
            'corpora.0.rows.2.differences.nll.upper is "x", not a number',
        ),
    ],
)
def test_what_does_not_fit_is_one_line(
    name: str, path: tuple[str | int, ...], value: Any, said: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(json.dumps(changed(golden(name), path, value)))
    with pytest.raises(UserError) as caught:
        FILES[name].read(file)
    remedy = f"remove it, and {FILES[name].REMEDY}"
    assert str(caught.value) == f"{file}: is damaged ({said}); {remedy}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "F: is missing; "),
        (b"\xff", "F: is damaged (not UTF-8"),
        (b"{", "F: is damaged ("),
        (b"[]", "F: is damaged (it is not a JSON object)"),
        (b"{}", "F: is damaged (it does not say its format)"),
        (b'{"format": 2}', "F: has format 2; this version reads format 1"),
        (b'{"format": 1}', "F: is damaged (name is missing); remove it, and "),
        (b'{"format": 1, "format": 1}', "F: is damaged (key 'format' is given twice)"),
    ],
)
def test_a_file_that_is_no_record_is_one_line(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as caught:
        RunRecord.read(file)
    assert str(caught.value).startswith(said.replace("F", str(file), 1))
    assert "\n" not in str(caught.value)


def test_importing_the_room_is_light() -> None:
    code = (
        "import sys, calibtrain.runs.records, calibtrain.runs.seeds, calibtrain.runs.results,"
        " calibtrain.metrics.quantities;"
        "print(sorted({'jax', 'numpy', 'scipy', 'plotly', 'jinja2'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
