"""Ablations: controls that hold, equal bytes, arms that are done, fail, or go on; the report."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, call

from calibtrain.ablation import apply_controls, expand, run_study
from calibtrain.ablation.result import student_half_width
from calibtrain.config import ModelConfig, StudyConfig, validate
from calibtrain.errors import UserError
from calibtrain.models import count_parameters
from calibtrain.report import write_report

BASE = {**TINY, "budget": {"bytes": 3_000}, "context": {"bytes": 96}}
GRID = {"tokenizer.vocab_size": [285, 310], "seed": [0, 1]}


def study(**changes: Any) -> StudyConfig:
    tree = {"title": "Test <study>", "base": BASE, "grid": GRID, **changes}
    return validate(StudyConfig, tree)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[Path, dict[str, Any]]:
    """A study of two vocabularies and two seeds, its arms run two at a time."""
    folder = tmp_path_factory.mktemp("study") / "study"
    return folder, run_study(study(controls={"context": "bytes"}), folder, jobs=2)


def test_every_arm_is_done_and_evaluated_on_the_same_bytes(finished: Any) -> None:
    _, result = finished
    assert [arm["status"] for arm in result["arms"]] == ["done"] * 4
    for name in ("markov-validation", "markov-test"):
        totals = {arm["evaluations"][name]["bytes"] for arm in result["arms"]}
        assert len(totals) == 1
        tokens = {arm["evaluations"][name]["tokens"] for arm in result["arms"]}
        assert len(tokens) == 2  # the vocabularies do differ


def test_controls_are_held_and_written_down(finished: Any) -> None:
    _, result = finished
    rows = {(row["quantity"], row["unit"]): row for row in result["held_fixed"]}
    assert rows["Training bytes", "bytes"]["held"]
    assert rows["Training text", "corpus hash"]["held"]
    assert rows["Parameters, body", "parameters"]["held"]
    assert not rows["Parameters, total", "parameters"]["held"]
    assert not rows["Training tokens", "tokens"]["held"]


def test_the_report_holds_the_numbers_of_the_files(finished: Any) -> None:
    folder, result = finished
    page = write_report(folder).read_text()
    start = page.index('id="calibtrain-results">') + len('id="calibtrain-results">')
    embedded = json.loads(page[start : page.index("</script>", start)].replace("<\\/", "</"))
    assert embedded["arms"] == result["arms"]
    for arm in result["arms"]:
        for name, figures in arm["evaluations"].items():
            corpus, split = name.split("-")
            path = (
                folder / arm["folder"] / "evaluations" / f"{corpus}-{split}-{figures['step']}.json"
            )
            stored = json.loads(path.read_text())
            assert {key: stored[key] for key in figures} == figures
    assert "Test &lt;study&gt;" in page


def test_summary_is_mean_and_interval_over_seeds(finished: Any) -> None:
    _, result = finished
    row = next(r for r in result["summary"] if r["evaluation"] == "markov-test")
    values = [
        arm["evaluations"]["markov-test"]["ece"]
        for arm in result["arms"]
        if arm["vocab_size"] == row["vocab_size"]
    ]
    assert row["seeds"] == 2
    assert row["mean"]["ece"] == pytest.approx(sum(values) / 2)
    # two values: half their distance times t(0.975, 1) = 12.706
    assert row["half_width"]["ece"] == pytest.approx(
        12.7062 * abs(values[0] - values[1]) / 2, rel=1e-4
    )
    assert student_half_width([1.0]) is None


def test_done_arms_are_not_run_again_and_a_failed_one_does_not_stop_the_rest(
    finished: Any, tmp_path: Path
) -> None:
    folder, _ = finished
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.jsonl")}
    config = tmp_path / "study.yaml"
    grid = {"tokenizer.vocab_size": [285, 310], "seed": [0, 1, 2]}
    tree = {"base": BASE, "grid": grid, "controls": {"context": "bytes"}}
    config.write_text(json.dumps(tree))
    bad = folder / "vocab_size=310,seed=2"
    bad.mkdir()
    (bad / "in-the-way.txt").write_text("not a run")
    done = call("ablate", config, "--run", folder, "--json")
    assert done.returncode == 1
    result = json.loads(done.stdout)
    states = {arm["name"]: arm["status"] for arm in result["arms"]}
    assert states.pop("vocab_size=310,seed=2") == "failed"
    assert set(states.values()) == {"done"}
    assert "no run folder" in next(arm["error"] for arm in result["arms"] if arm["error"])
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert "vocab_size=310,seed=2" in (folder / "report.html").read_text()


def test_totals_are_matched_by_solving_for_width(cache: Path) -> None:
    """With published tokenizers, the smaller vocabulary gets the wider model."""
    model = {"width": 64, "depth": 2, "heads": 2}
    base = {**BASE, "corpus": {"name": "kjv"}, "model": model, "tokenizer": {"vocab_size": 1024}}
    grid = {"tokenizer.vocab_size": [512, 4096]}
    arms = apply_controls(study(base=base, grid=grid, controls={"parameters": "total"}), cache)
    target = count_parameters(validate(ModelConfig, model), 1024).total
    for arm in arms:
        assert arm.plan.parameters.total == pytest.approx(target, rel=0.06)
    assert arms[0].config.model.width > 64 > arms[1].config.model.width


def test_bodies_are_matched_when_depth_varies(cache: Path) -> None:
    base = {**BASE, "model": {"width": 64, "depth": 2, "heads": 2}}
    arms = apply_controls(study(base=base, grid={"model.depth": [2, 4]}), cache)
    bodies = [arm.plan.parameters.body for arm in arms]
    assert bodies[1] == pytest.approx(bodies[0], rel=0.1)
    assert arms[1].config.model.width < arms[0].config.model.width


@pytest.mark.parametrize("unit", ["tokens", "flops", "bytes"])
def test_budgets_are_matched_in_the_unit_asked_for(cache: Path, unit: str) -> None:
    arms = apply_controls(study(controls={"budget": unit}), cache)
    amounts = [getattr(arm.plan.budget, unit) for arm in arms]
    assert max(amounts) == pytest.approx(min(amounts), rel=0.005)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": {"budget.steps": [1, 2]}}, ["controls.budget", "budget.steps", "as_given"]),
        ({"grid": {"model.width": [16, 32]}}, ["controls.parameters", "model.width"]),
        ({"grid": {"seed": [0, 0]}}, ["seed=0", "twice"]),
        ({"grid": {"model.wdth": [16]}}, ["model.wdth", "model.width"]),
        ({"grid": {"seed": [-1]}}, ["seed", "-1"]),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(cache: Path, changes: Any, words: list[str]) -> None:
    with pytest.raises(UserError) as error:
        apply_controls(study(**changes), cache)
    for word in words:
        assert word in str(error.value)


def test_arms_are_named_by_what_varies() -> None:
    grid = {"tokenizer": [{"kind": "byte"}, {"kind": "bpe", "vocab_size": 300}], "seed": [3]}
    assert [arm.name for arm in expand(study(grid=grid))] == [
        "tokenizer=byte,seed=3",
        "tokenizer=bpe-300,seed=3",
    ]
