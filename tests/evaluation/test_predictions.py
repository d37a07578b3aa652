"""Predictions of any model: figures are those of their definitions, and intervals hold."""

import contextlib
import io
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import call
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

import calibtrain as ct
from calibtrain.errors import UserError
from calibtrain.evaluation import Evaluation, measure, read_evaluation
from calibtrain.metrics.signature import parse_signature

BINS = 15


def made(count: int, seed: int = 0, power: float = 1.3) -> tuple[np.ndarray, np.ndarray]:
    """Over-confident predictions; some lie on edges of bins."""
    rng = np.random.default_rng(seed)
    confidence = rng.random(count)
    confidence[:BINS] = np.arange(1, BINS + 1) / BINS
    return confidence, (rng.random(count) < confidence**power).astype(int)


def table(index: np.ndarray, c: np.ndarray, y: np.ndarray) -> list[tuple[int, float, float]]:
    """Size, mean confidence and accuracy of each bin that holds a prediction."""
    held = [index == b for b in np.unique(index)]
    return [(int(h.sum()), c[h].mean(), y[h].mean()) for h in held]


def definitions(c: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Every figure as it is defined, for a number of predictions that the bins divide."""
    n = len(c)
    width = table(np.array([min(b for b in range(BINS) if x <= (b + 1) / BINS) for x in c]), c, y)
    order = np.argsort(c)
    c, y = c[order], y[order]

    def mass(bins: int) -> list[tuple[int, float, float]]:
        return table(np.arange(n) * bins // n, c, y)

    squares = [m * ((p - a) ** 2 - a * (1 - a) / (m - 1)) / n for m, p, a in mass(BINS)]
    running = [np.mean(y[place:] == 0) for place in range(n)]
    return {
        "accuracy": y.mean(),
        "mean_confidence": c.mean(),
        "signed_gap": c.mean() - y.mean(),
        "ece": sum(m * abs(p - a) for m, p, a in width) / n,
        "maximum_calibration_error": max(abs(p - a) for _, p, a in width),
        "average_calibration_error": float(np.mean([abs(p - a) for _, p, a in width])),
        "ece_mass": sum(m * abs(p - a) for m, p, a in mass(BINS)) / n,
        "debiased_calibration_error": max(sum(squares), 0.0) ** 0.5,
        "kolmogorov_smirnov_error": np.abs(np.cumsum(c - y)).max() / n,
        "brier": brier_score_loss(y, c),
        "brier_reliability": sum(m * (p - a) ** 2 for m, p, a in width) / n,
        "brier_resolution": sum(m * (a - y.mean()) ** 2 for m, _, a in width) / n,
        "brier_uncertainty": y.mean() * (1 - y.mean()),
        "area_under_roc": roc_auc_score(y, c),
        "area_under_risk_coverage": float(np.mean(running)),
    }


def test_figures_are_those_of_their_definitions() -> None:
    confidence, correct = made(BINS * 200)
    found = measure(confidence, correct, bins=BINS).results
    for name, value in definitions(confidence, correct).items():
        assert found[name] == pytest.approx(value, rel=0, abs=1e-12), name
    sweep = ct.metrics.sweep_calibration_error(confidence, correct)
    assert found["sweep_calibration_error"] == pytest.approx(sweep, rel=0, abs=1e-12)
    smooth = ct.metrics.smooth_calibration_error(confidence, correct)
    assert found["smooth_calibration_error"] == pytest.approx(smooth, rel=0, abs=1e-12)
    parts = [found[f"brier_{part}"] for part in ("reliability", "uncertainty", "within_bin")]
    assert found["brier"] == pytest.approx(sum(parts) - found["brier_resolution"], abs=1e-12)


def test_choices_are_scored_by_their_softmax() -> None:
    rng = np.random.default_rng(1)
    logits, label = rng.normal(size=(400, 5)) * 2, rng.integers(0, 5, 400)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    found = measure(log_probabilities=logits, label=label).results
    one_hot = np.eye(5)[label]
    expected = {
        "nll": log_loss(label, p, labels=range(5)),
        "entropy_rate": -(p * np.log(p)).sum(-1).mean(),
        "multiclass_brier": ((p - one_hot) ** 2).sum(-1).mean(),
        "accuracy": (p.argmax(-1) == label).mean(),
        "mean_confidence": p.max(-1).mean(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name
    judged = measure(p.max(-1), p.argmax(-1) == label).results
    assert judged["ece"] == pytest.approx(found["ece"], abs=1e-12)
    assert judged["nll"] is None
    assert judged["bits_per_byte"] is None
    # a constant per row changes nothing, and neither does a choice that cannot be
    moved = np.column_stack([logits + rng.normal(size=(400, 1)), np.full(400, -np.inf)])
    same = measure(log_probabilities=moved, label=label).results
    for name in (*expected, "ece", "area_under_roc"):
        assert same[name] == pytest.approx(found[name], rel=1e-9), name
    assert sum(row["tokens"] for row in found["entropy_bands"]) == 400


def test_edges_of_bins_are_those_of_the_given_precision() -> None:
    confidence = np.full(40, 0.2, np.float32)  # above 3/15 in float64, on that edge in float32
    given = measure(confidence, np.zeros(40))
    assert given.results["reliability"][2]["tokens"] == 40
    wider = measure(confidence.astype(np.float64), np.zeros(40))
    assert wider.results["reliability"][3]["tokens"] == 40


def half(row: Any, name: str) -> float:
    interval = row["intervals"][name]
    return (interval["upper"] - interval["lower"]) / 2


def test_intervals_of_independent_predictions_are_binomial() -> None:
    """Also by group, where the file is sorted by it: no group is left with a few blocks."""
    confidence, correct = made(6_000)
    groups = np.repeat(np.arange(12), 500)
    found = measure(confidence, correct, groups=groups).results
    accuracy = found["accuracy"]
    assert half(found, "accuracy") == pytest.approx(
        1.96 * np.sqrt(accuracy * (1 - accuracy) / 6_000), rel=0.15
    )
    assert [row["label"] for row in found["groups"]] == sorted(map(str, range(12)))
    for row in found["groups"]:
        inside = correct[groups == int(row["label"])]
        assert row["tokens"] == 500
        assert row["accuracy"] == pytest.approx(inside.mean(), abs=1e-12)
        expected = 1.96 * np.sqrt(row["accuracy"] * (1 - row["accuracy"]) / 500)
        assert half(row, "accuracy") == pytest.approx(expected, rel=0.3)
    bands = found["confidence_bands"]
    assert sum(row["tokens"] for row in bands) == 6_000
    assert len(bands) == 6


def test_repeated_predictions_of_a_document_are_no_new_evidence() -> None:
    confidence, correct = made(200)
    once = measure(confidence, correct).results
    many = [np.repeat(each, 4) for each in (confidence, correct, np.arange(200))]
    repeated = measure(many[0], many[1], documents=many[2])
    assert repeated.about["documents"] == 200
    for name in ("accuracy", "signed_gap", "ece"):
        assert repeated.results[name] == pytest.approx(once[name], abs=1e-12)
        assert half(repeated.results, name) == pytest.approx(half(once, name), rel=1e-6)
    assert half(measure(many[0], many[1]).results, "accuracy") < 0.6 * half(once, "accuracy")


def test_documents_of_any_number_keep_their_order_and_sums() -> None:
    confidence, correct = made(900)
    names = [f"d{number // 2}" for number in range(900)]
    found = measure(confidence, correct, documents=names)
    assert found.documents["document"].tolist() == list(dict.fromkeys(names))
    sums = np.asarray(confidence).reshape(-1, 2).sum(-1)
    np.testing.assert_allclose(found.documents["confidence"], sums, rtol=1e-12)
    assert "bytes" not in found.documents
    assert "nll" not in found.documents


def test_few_documents_are_noted() -> None:
    confidence, correct = made(40)
    assert measure(confidence, correct).notes == []
    few = measure(confidence, correct, documents=np.arange(40) // 10)
    assert any("4 documents" in note for note in few.notes)
    one = measure(confidence, correct, documents=np.zeros(40))
    assert len(one.notes) == 1
    assert not one.results["intervals"]
    all_right = measure(confidence, np.ones(40)).results
    assert all_right["area_under_roc"] is None
    assert all_right["accuracy"] == 1


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = measure(*made(50), groups=["x", "y"] * 25, name="mine")
    path = tmp_path / "mine.json"
    found.record().write(path)
    read = read_evaluation(path)
    assert read.document() == found.to_dict()
    assert (read.corpus, read.event, read.bytes, read.limit) == ("mine", "prediction", 0, None)
    signature = parse_signature(read.signatures["ece"])  # type: ignore[index]
    assert (signature.tokenizer, signature.confidence) == ("none", "given")
    other = measure(*made(50, seed=1), name="mine")
    assert other.about["corpus_hash"] != found.about["corpus_hash"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"confidence": [0.5, 1.5], "correct": [1, 0]}, r"^confidence: .*\[0, 1\]"),
        ({"confidence": [0.5, np.nan], "correct": [1, 0]}, r"^confidence: must be finite"),
        ({"confidence": [0.5], "correct": [0.5]}, r"^correct: 0.5 is not allowed; 0 or 1"),
        ({"confidence": [0.5, 0.1], "correct": [1]}, r"^correct: shape \(1,\)"),
        ({"confidence": [], "correct": []}, r"^confidence: is empty"),
        ({"confidence": [0.5]}, r"^confidence: confidence was given; confidence and correct"),
        ({}, r"^confidence: nothing was given"),
        ({"confidence": [0.5], "correct": [1], "label": [1]}, r"confidence, correct, label was"),
        ({"log_probabilities": [-1, -2], "label": [0]}, r"^log_probabilities: shape \(2,\)"),
        ({"log_probabilities": [[-1, -2]], "label": [2]}, r"^label: must be in \[0, 2\)"),
        ({"log_probabilities": [[-1, -np.inf]], "label": [1]}, r"^label: choice 1 of row 0 has"),
        ({"log_probabilities": [[-1, np.nan]], "label": [1]}, r"^log_probabilities: must be"),
        ({"log_probabilities": [[-1, -2]], "label": [0, 1]}, r"^label: shape \(2,\) must be"),
        ({"confidence": [0.5], "correct": [1], "documents": ["a", "b"]}, r"^documents: shape"),
        ({"confidence": [0.5], "correct": [1], "groups": [None]}, r"^groups: has missing values"),
    ],
)
def test_what_is_not_allowed_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(**arguments)


def test_settings_that_are_not_allowed_are_named() -> None:
    with pytest.raises(UserError, match="bins: 7 does not divide 480"):
        measure([0.5], [1], bins=7)
    with pytest.raises(UserError, match=r"groups: makes 201 groups of 201 documents; at most 200"):
        measure(np.full(201, 0.5), np.ones(201), groups=np.arange(201))


def test_the_command_prints_what_the_function_returns(tmp_path: Path) -> None:
    confidence, correct = made(60, power=4)
    file = tmp_path / "mine.csv"
    lines = [f"{c!r},{y}" for c, y in zip(confidence.tolist(), correct.tolist(), strict=True)]
    file.write_text("\n".join(["confidence,correct", *lines]) + "\n")
    output, page = tmp_path / "out.json", tmp_path / "page.html"
    done = call("measure", file, "--json", "--output", output, "--report", page)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert read_evaluation(output).document() == printed
    found: Evaluation = measure(confidence, correct)
    assert {key: printed[key] for key in found.figures} == found.figures
    assert printed["intervals"] == found.results["intervals"]
    assert printed["corpus"] == "mine.csv"
    assert str(output) in done.stderr
    html = page.read_text()
    assert "over-confident on average" in html
    shown = call("measure", file).stdout
    assert "mine.csv: 60 predictions" in shown
    assert "Signed gap" in shown


def test_examples_of_the_page_print_what_it_says() -> None:
    page = Path(__file__).parents[2] / "docs" / "measure.md"
    examples = re.findall(
        r"```python\n(.*?)```\n\n((?:    [^\n]+\n)+)", page.read_text(), re.DOTALL
    )
    assert len(examples) == 2
    names: dict[str, Any] = {}
    for code, printed in examples:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, names)
        assert out.getvalue() == textwrap.dedent(printed)
