"""The table of figures: every figure of an evaluation is in it, with its unit by event space."""

import doctest
import importlib
import json
from pathlib import Path

import pytest

from calibtrain.cli.result_tables import print_table, results_tables
from calibtrain.metrics import quantities
from calibtrain.metrics.quantities import QUANTITIES, quantity_name

GOLDEN = Path(__file__).parent.parent / "runs" / "golden"
SETTINGS = "format step vocab_size context bins documents limit sweep_bins temperature beam ratio"
NOT_FIGURES = {*SETTINGS.split(), "warm_up"}
"""Numbers of a file that say how its figures were made."""


@pytest.mark.parametrize("name", ["evaluation.json", "evaluation-byte.json"])
def test_every_figure_of_an_evaluation_has_a_row(name: str) -> None:
    found = json.loads((GOLDEN / name).read_text())
    numbers = {key for key, value in found.items() if isinstance(value, (int, float))}
    assert numbers - NOT_FIGURES <= QUANTITIES.keys()


def test_the_lists_of_columns_name_rows() -> None:
    for keys in (quantities.MAIN, quantities.SUITE, quantities.COMPARED):
        assert set(keys) <= QUANTITIES.keys()
        assert len(set(keys)) == len(keys)
    for quantity in QUANTITIES.values():
        assert quantity.meaning.endswith(".")
        assert quantity.better in ("low", "high", "zero", None)


def test_the_unit_is_that_of_the_event() -> None:
    nll, bits = QUANTITIES["nll"], QUANTITIES["bits_per_byte"]
    assert [nll.unit_of(event) for event in ("token", "byte", "word")] == [
        "nats/token",
        "nats/byte",
        "nats/word",
    ]
    assert nll.unit_in_words("byte") == "nats per byte"
    assert bits.unit_of("word") == bits.unit_of() == "bits/byte"


@pytest.mark.parametrize("event", ["token", "byte", "word"])
def test_the_terminal_prints_the_unit_of_the_event(
    event: str, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = {"entropy_rate": 1.23456, "signed_gap": -0.1, "bytes": 12345, "ece": None}
    for table in results_tables([("kjv-test", {**figures, "event": event})]):
        print_table(table)
    shown = capsys.readouterr().out
    assert f"entropy, nats/{event}" in shown
    assert all(text in shown for text in ("1.2346", "-0.1000", "12,345", "–"))


def test_values_are_rounded_for_a_page_and_for_a_terminal() -> None:
    gap = QUANTITIES["signed_gap"]
    assert (gap.show(-0.01234), gap.plain(-0.01234)) == ("−0.0123", "-0.0123")
    assert (gap.show(0.00001), gap.show_half(0.01)) == ("0.0000", "0.0100")
    assert (gap.show(None), gap.plain(None)) == ("–", "–")
    assert QUANTITIES["nll"].show(float("inf")) == "not finite"
    assert quantity_name("brier_resolution") == "Brier resolution"
    assert quantity_name("mean_confidence") == "mean confidence"


def test_the_examples_run() -> None:
    found = doctest.testmod(importlib.import_module("calibtrain.figures"))
    assert found.attempted
    assert not found.failed
