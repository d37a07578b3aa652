"""Users' files of predictions: every format gives the same columns, every mistake is one line."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calibtrain.data.predictions.files import ColumnNames, read_predictions
from calibtrain.data.predictions.table import Choices, Judged, PredictionTable
from calibtrain.errors import UserError

ROWS = [
    {"confidence": 0.75, "correct": True, "document": "a", "group": "x"},
    {"confidence": 0.1, "correct": False, "document": "a", "group": "y"},
    {"confidence": 1.0, "correct": True, "document": "b", "group": "y"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if name.endswith(".jsonl"):
        text = "\n".join(map(json.dumps, rows)) + "\n\n"
    else:
        cells = [
            [f'"{v}"' if isinstance(v, (str, list)) else str(v) for v in row.values()]
            for row in rows
        ]
        text = "\ufeff" + "\r\n".join(map(",".join, [rows[0].keys(), *cells])) + "\r\n"
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def read(*paths: Path, **columns: str) -> PredictionTable:
    return read_predictions([str(path) for path in paths], ColumnNames(**columns))


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet"])
def test_every_format_gives_the_same_columns(suffix: str, tmp_path: Path) -> None:
    found = read(write(tmp_path / f"p{suffix}", ROWS))
    assert isinstance(found.scores, Judged)
    assert found.scores.confidence.tolist() == [0.75, 0.1, 1.0]
    assert found.scores.correct.tolist() == [1, 0, 1]
    assert (found.documents, found.groups) == (["a", "a", "b"], ["x", "y", "y"])
    renamed = [{"p": row["confidence"], "ok": row["correct"], "why": "w"} for row in ROWS]
    other = read(write(tmp_path / f"q{suffix}", renamed), confidence="p", correct="ok", group="why")
    np.testing.assert_array_equal(other.scores.arrays[0], found.scores.confidence)
    assert other.groups == ["w"] * 3
    assert not other.documents
    rows = [{"logprobs": [-1.0, -2.5], "target": 1}, {"logprobs": [-3.0, -0.5, -4], "target": 0}]
    choices = read(write(tmp_path / f"r{suffix}", rows)).scores
    assert isinstance(choices, Choices)
    assert choices.label.tolist() == [1, 0]
    assert choices.log_probabilities.tolist() == [[-1.0, -2.5, -np.inf], [-3.0, -0.5, -4.0]]


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    one, other = write(tmp_path / "p.csv", ROWS), write(tmp_path / "q.csv", ROWS[:2])
    before = read(one).content_hash
    assert before != read(other).content_hash
    one.touch()
    assert read(one).content_hash == before
    assert len(before) == 16


def test_a_column_of_parquet_keeps_its_precision(tmp_path: Path) -> None:
    table = pa.table({"confidence": pa.array([0.2], pa.float32()), "correct": [1]})
    pq.write_table(table, tmp_path / "p.parquet")
    assert read(tmp_path / "p.parquet").scores.arrays[0].dtype == np.float32


def test_several_files_are_groups(tmp_path: Path) -> None:
    rows = [{"confidence": 0.5, "correct": 1}]
    one, two = write(tmp_path / "one.csv", rows), write(tmp_path / "two.jsonl", rows * 2)
    found = read(one, two)
    assert found.groups == ["one.csv", "two.jsonl", "two.jsonl"]
    assert len(set(found.documents)) == 3
    with pytest.raises(UserError, match=r"q.jsonl: holds log-probabilities .*one.csv confidences"):
        read(one, write(tmp_path / "q.jsonl", [{"logprobs": [-1, -2], "label": 0}]))


def test_confidences_go_before_choices_with_a_note(tmp_path: Path) -> None:
    rows = [{"confidence": 0.5, "correct": 1, "logprobs": [-1, -2], "label": 0}]
    path = write(tmp_path / "p.jsonl", rows)
    assert isinstance(read(path).scores, Judged)
    assert "--logprobs" in read(path).notes[0]
    chosen = read(path, logprobs="logprobs")
    assert isinstance(chosen.scores, Choices)
    assert not chosen.notes


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "p.csv",
            "confidence,correct\n0.5,1\n1.2,0\n",
            r'line 3: confidence: "1.2" is not.*\[0, 1\]',
        ),
        ("p.csv", "confidence,correct\nnan,0\n", 'line 2: confidence: "nan" is not allowed'),
        ("p.csv", "confidence,correct\n,0\n", "line 2: confidence: nothing is not allowed"),
        ("p.csv", "confidence,correct\n0.5,yes\n", 'correct: "yes" is not.*0, 1, true or false'),
        ("p.csv", "conf,correct\n0.5,1\n", "no column 'confidence'.*mean --confidence conf"),
        ("p.csv", "confidence,correct\n0.5\n", "line 2: has 1 of 2 fields"),
        ("p.csv", 'confidence,correct\n"0.5,1\n', "is not CSV"),
        ("p.csv", "confidence,confidence\n0.5,1\n", "has 2 columns called 'confidence'"),
        ("p.csv", "confidence,correct\n", "holds no predictions"),
        ("p.csv", "", "is empty; its first line must name the columns"),
        ("p.csv", b"confidence,correct\n0.5,1\n\xff,1\n", "line 3: not valid UTF-8 at byte 25"),
        ("p.csv", "confidence,correct,document\n0.5,1,\n", "document: nothing is not allowed"),
        ("p.jsonl", '{"confidence": 0.5, "correct": 1}\n{"conf', "line 2: not valid JSON"),
        ("p.jsonl", '{"confidence": 0.5, "correct": 1}\n[1]', "line 2: must be a JSON object"),
        ("p.jsonl", '{"confidence": 0.5, "correct": 1}\n{"confidence": 1}', "line 2: has no 'corr"),
        ("p.jsonl", '{"confidence": true, "correct": 1}', "confidence: true is not allowed"),
        ("p.jsonl", '{"confidence": 0.5, "correct": 2}', "correct: 2 is not allowed"),
        ("p.jsonl", '{"confidence": 0.5, "correct": null}', "correct: nothing is not allowed"),
        ("p.jsonl", '{"logprobs": [-1, -2], "label": 2}', "label: 2 is not allowed.*0..1"),
        ("p.jsonl", '{"logprobs": [-1, -2], "label": 0.5}', "label: 0.5 is not allowed"),
        ("p.jsonl", '{"logprobs": [-1, NaN], "label": 0}', "logprobs: nan is not allowed"),
        ("p.jsonl", '{"logprobs": [-1], "label": 0}', "a list of two or more"),
        ("p.jsonl", '{"choices": ["a", "b"], "label": 0}', 'choices: "a" is not allowed'),
        ("p.jsonl", '{"logprobs": [-Infinity, -1], "label": 0}', "label: 0 is not.*infinite"),
        ("p.jsonl", '{"logprobs": [-1, -2], "target": "cat"}', 'target: "cat" is not allowed'),
        ("p.jsonl", "\n\n", "holds no predictions"),
        ("p.parquet", "confidence", "is not a readable parquet file"),
        ("p.csv.gz", "confidence", "is not a whole gzip file"),
        ("p.txt", "confidence", "suffix not supported; allowed: .csv"),
    ],
)
def test_a_mistake_is_one_line(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as raised:
        read(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_options_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "p.csv", ROWS)
    with pytest.raises(UserError, match="--confidence, --label: exclude each other"):
        read(path, confidence="confidence", label="label")
    with pytest.raises(UserError, match=r"no column 'doc'.*did you mean --document document"):
        read(path, document="doc")
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "nothing.csv")
