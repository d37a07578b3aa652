"""Figures of records as a notebook calls them: they draw the files' numbers, in real colours."""

import json
from pathlib import Path

import plotly.io as pio
import pytest

from calibtrain import figures
from calibtrain.figures.style import NAME, TEMPLATE, palette
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.records import RunRecord
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


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("shades", [1, 2, 3, 5, 9])
def test_a_vocabulary_has_one_colour_that_stands_out_in_both_schemes(shades: int) -> None:
    light, dark = palette("light", shades), palette("dark", shades)
    for index in range(shades):
        colour = light[f"seq-{index}"]
        assert colour == dark[f"seq-{index}"]
        for scheme in (light, dark):
            low, high = sorted(luminance(c) + 0.05 for c in (colour, scheme["raised"]))
            assert high / low >= 3, "WCAG 2 asks for 3 to 1 of what is drawn"


def test_mass_and_what_a_perfect_model_shows(record: EvaluationRecord) -> None:
    ends = {"lower": -0.01, "upper": 0.02, "method": "bca"}
    mass = {"label": "1", "decile": 1, "tokens": 9.0, "predicted_share": 0.11, "gap": 0.01}
    mass |= {"observed_share": 0.1, "intervals": {"gap": ends}}
    row = {"label": "1", "tokens": 9.0, "ece": 0.2, "signed_gap": -0.3, "reference_gap": -0.29}
    row |= {"excess_gap": -0.01, "intervals": {"excess_gap": ends}}
    tables = {"frequency_mass": [mass], "frequency_deciles": [row]}
    found = EvaluationRecord.parse(record.document() | tables, "new")
    bars, gap = figures.frequency_mass([found]).data
    assert (list(bars.y[:2]), list(gap.y)) == ([-0.01, 0.02], [0.01])
    whole, perfect = figures.by_stratum([found], "frequency_deciles", "signed_gap").data
    assert (list(whole.y), list(perfect.y)) == ([-0.3], [-0.29])
    bars, excess = figures.by_stratum([found], "frequency_deciles", "excess_gap").data
    assert (list(bars.y[:2]), list(excess.y)) == ([-0.01, 0.02], [-0.01])
    with pytest.raises(ValueError, match="ece is not drawn for frequency_deciles"):
        figures.by_stratum([found], "frequency_deciles", "ece")
    with pytest.raises(ValueError, match="have no word_pieces"):
        figures.by_stratum([found], "word_pieces")
    without = {k: v for k, v in found.document().items() if k != "frequency_mass"}
    with pytest.raises(ValueError, match="evaluate again"):
        figures.frequency_mass([EvaluationRecord.parse(without, "old")])
