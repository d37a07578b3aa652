"""Tables on a terminal: whatever its width, no line is longer and no figure is cut."""

import io
import re

import pytest
from rich.console import Console
from rich.table import Table

from calibtrain.cli.result_tables import fitted, results_tables
from calibtrain.cli.terminal import show_counting

FIGURES = {
    "bits_per_byte": 2.28971,
    "ece": 0.01321,
    "signed_gap": -0.00494,
    "accuracy": 0.22151,
    "mean_confidence": 0.21662,
    "entropy_rate": 3.56133,
    "entropy_bits_per_byte": 2.40984,
    "bytes": 217678,
}
SHOWN = ["2.2897", "0.0132", "-0.0049", "0.2215", "0.2166", "3.5613", "2.4098", "217,678"]


def printed(tables: list[Table], width: int) -> str:
    """What a terminal of that width shows."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    for table in tables:
        for part in fitted(table, width):
            console.print(part)
    assert isinstance(console.file, io.StringIO)
    return re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue())


@pytest.mark.parametrize("width", [200, 80, 60, 40])
@pytest.mark.parametrize("rows", [1, 3])
def test_no_line_is_too_long_and_no_figure_is_cut(width: int, rows: int) -> None:
    about = {"event": "byte", "temperature": "吾輩の温度", "file": f"runs/吾輩/{'x' * 90}.json"}
    named = [(f"聖書{number}-test", {**FIGURES, **about}) for number in range(rows)]
    console = Console(width=width)
    text = printed(results_tables(named), width)
    assert all(console.measure(line).maximum <= width for line in text.splitlines())
    for figure in SHOWN:
        assert text.count(figure) == rows
    for name, _ in named:
        assert name in text
    assert "吾輩の温度" in text
    assert text.count("x") == 90 * rows


def test_units_follow_the_events_of_each_row() -> None:
    rows = [("kjv-test", FIGURES), ("kjv-test-byte", {**FIGURES, "event": "byte"})]
    tables = results_tables([*rows, ("kjv-test-word", FIGURES)])
    headings = [[str(column.header) for column in table.columns] for table in tables]
    for heading, event in zip(headings, ("token", "byte", "word"), strict=True):
        assert [text for text in heading if "nats" in text] == [f"entropy, nats/{event}"]
    assert [next(iter(table.columns[1].cells)) for table in tables] == ["token", "byte", "word"]


def test_a_log_says_how_long_the_rest_takes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with show_counting("batches") as progress:
        for done in range(8):
            progress(done, 100)
            now += 4.0
        progress.stage("head 2 of 7: linear")
        progress(0, 10)
        now += 11.0
        progress(1, 10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "batches: 3 of 100, 388 s left",
        "batches: 6 of 100, 376 s left",
        "head 2 of 7: linear: 1 of 10, 99 s left",
    ]
