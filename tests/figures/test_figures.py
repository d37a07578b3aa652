"""Figures of records as a notebook calls them: they draw the files' numbers, in real colours."""

import json
from pathlib import Path

import plotly.io as pio
import pytest

from calibtrain import figures
from calibtrain.figures.style import NAME, TEMPLATE, palette
from calibtrain.runs.records import EvaluationRecord, RunRecord
from calibtrain.runs.results import Measured, RunResults

GOLDEN = Path(__file__).parent.parent / "runs" / "golden"


@pytest.fixture(scope="module")
def record() -> EvaluationRecord:
    return EvaluationRecord.read(GOLDEN / "evaluation.json")


def test_the_template_is_registered() -> None:
    assert pio.templates[NAME] == TEMPLATE


def test_reliability_draws_the_bins(record: EvaluationRecord) -> None:
    curve = figures.reliability([record]).data[1]
    full = [row for row in record.reliability if row.tokens]
    assert list(curve.x) == pytest.approx([row.confidence for row in full])
    assert list(curve.y) == pytest.approx([row.accuracy for row in full])


def test_curves_and_strata_draw_the_tables(record: EvaluationRecord) -> None:
    assert record.smooth_reliability
    assert record.risk_coverage
    smooth = figures.smooth_reliability([record]).data[1]
    assert list(smooth.x) == [point.confidence for point in record.smooth_reliability]
    risk = figures.risk_coverage([record]).data[0]
    assert list(risk.y) == [point.risk for point in record.risk_coverage]
    gaps = figures.by_stratum([record], "entropy_bands", "signed_gap").data[-1]
    rows = record.strata["entropy_bands"]
    assert list(gaps.y) == [row.numbers.get("signed_gap") for row in rows]


def test_a_curve_that_is_not_in_the_file_is_named(record: EvaluationRecord) -> None:
    tree = record.document()
    del tree["risk_coverage"]
    with pytest.raises(ValueError, match="no such curve"):
        figures.risk_coverage([EvaluationRecord.parse(tree, "old")])


def test_training_is_drawn_against_its_text() -> None:
    measured = tuple(
        Measured(step, step * 10, step * 100, {"ece": 0.1 / step, "bits_per_byte": 3.0 / step})
        for step in (1, 2, 3)
    )
    run = RunResults(RunRecord.read(GOLDEN / "run.json"), measured=measured)
    (line,) = figures.along_training(run, "ece").data
    assert list(line.x) == [100, 200, 300]
    assert list(line.y) == pytest.approx([0.1, 0.05, 0.1 / 3])
    exact = run.record.corpus.entropy_bits_per_byte
    shapes = figures.along_training(run, "bits_per_byte").layout.shapes
    assert [shape.y0 for shape in shapes] == [exact]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_colour_is_left_to_a_page(scheme: str, record: EvaluationRecord) -> None:
    figure = figures.reliability([record], scheme)
    text = figure.to_json()
    assert "var(" not in text
    assert json.loads(text)["layout"]["paper_bgcolor"] == palette(scheme, 0)["raised"]
