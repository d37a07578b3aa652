"""Figures of generations show what the records say."""

import pytest

from calibtrain import figures
from calibtrain.figures.generations import memory_figure
from calibtrain.runs.analysis_records import EntropyRecord, MemoryRecord, TypicalityRecord

ABOUT = {
    "format": 1,
    "run": "tiny",
    "step": 1,
    "corpus": "markov",
    "split": "test",
    "tokenizer_hash": "0",
    "vocab_size": 300,
    "model": "lstm",
    "context": 32,
    "documents": 4,
    "protocol": {},
}


def figure(estimate: float, half: float | None = 0.5) -> dict[str, float | None]:
    ends = (None, None) if half is None else (estimate - half, estimate + half)
    return dict(zip(("estimate", "lower", "upper"), (estimate, *ends), strict=True))


def test_entropy_is_drawn_over_the_texts_that_reach_the_end() -> None:
    positions = [
        {"start": 0, "stop": 10, "texts": 9, "common_bits_per_byte": figure(2.0)},
        {"start": 10, "stop": 20, "texts": 5, "common_bits_per_byte": figure(3.0)},
    ]
    counts = {"texts": 9, "ended": 4, "tokens": 9, "bytes": 90}
    rows = [
        {"name": "text", "measured": "cross entropy", **counts, "common_texts": 5},
        {"name": "ancestral", "measured": "entropy", **counts, "common_texts": 0},
    ]
    tree = {**ABOUT, "rows": [{**row, "positions": positions} for row in rows]}
    drawn = figures.entropy_by_position(EntropyRecord.parse(tree, "here"))
    band, line = drawn.data  # no text of the generations reaches the end
    assert line.name == "text: cross entropy"
    assert (list(line.x), list(line.y)) == ([5, 15], [2.0, 3.0])
    assert (list(band.x), list(band.y)) == ([5, 15, 15, 5], [1.5, 2.5, 3.5, 2.5])


def test_runs_and_their_limited_ones_have_a_line_each() -> None:
    rows = [{"tokens": n, "bits_per_byte": figure(1.0 / n, None)} for n in (1, 2)]
    limited = {"run": "short", "context": 2, "rows": rows}
    tree = {**ABOUT, "positions": 10, "bytes_per_token": 2.0, "rows": rows}
    records = [
        MemoryRecord.parse({**tree, "limited": limited}, "one"),
        MemoryRecord.parse({**tree, "model": "transformer"}, "two"),
        MemoryRecord.parse({**tree, "model": "transformer", "run": "other"}, "three"),
    ]
    assert [key.name for key in memory_figure(records).keys] == [
        "lstm, V = 300",
        "lstm, V = 300: trained on 2",
        "transformer, V = 300",
        "transformer, V = 300, other",
    ]
    lines = [each for each in figures.memory_bound(records).data if each.showlegend]
    assert [list(each.y) for each in lines] == [[1.0, 0.5]] * 4


def test_typicality_has_a_point_for_each_kind_of_text() -> None:
    counts = {"texts": 4, "bytes": 40, "quality": {}}
    rows = [
        {"name": name, **counts, "deviation": figure(value)}
        for name, value in (("text", 0.0), ("greedy", -1.5))
    ]
    record = TypicalityRecord.parse({**ABOUT, "rows": rows, "correlations": []}, "here")
    bars, marks = figures.typicality(record).data
    assert dict(zip(marks.x, marks.y, strict=True)) == {"text": 0.0, "greedy": -1.5}
    assert list(bars.y) == pytest.approx([-0.5, 0.5, None, -2.0, -1.0, None])
