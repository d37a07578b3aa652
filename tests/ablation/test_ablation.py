"""Ablations: controls that hold, equal bytes, arms that are done, fail, or go on; the report."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY, call

from calibtrain.ablation import apply_controls, expand, run_study
from calibtrain.ablation.controls import held_fixed
from calibtrain.config import ModelConfig, StudyConfig, TokenizerConfig, validate
from calibtrain.data.corpora.corpus import open_corpus
from calibtrain.data.tokenizers.tokenizer_choice import obtain_tokenizer
from calibtrain.errors import UserError
from calibtrain.metrics.student import student_half_width
from calibtrain.models.size import count_parameters
from calibtrain.report import write_report

BASE = {
    **TINY,
    "budget": {"bytes": 3_000},
    "context": {"bytes": 96},
    "evaluation": {
        "every": 24,
        "bytes": 2_000,
        "final_bytes": 3_000,
        "rows": 4,
        "events": ["token"],  # a study has byte events by default
    },
    "checkpoints": {"every": 24},
}
GRID = {"tokenizer.vocab_size": [285, 300], "seed": [0, 1]}


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


@pytest.mark.long
def test_done_arms_are_not_run_again_and_a_failed_one_does_not_stop_the_rest(
    finished: Any, tmp_path: Path
) -> None:
    folder, _ = finished
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*/metrics.jsonl")}
    config = tmp_path / "study.yaml"
    grid = {"tokenizer.vocab_size": [285, 300], "seed": [0, 1, 2]}
    tree = {"base": BASE, "grid": grid, "controls": {"context": "bytes"}}
    config.write_text(json.dumps(tree))
    bad = folder / "vocab_size=300,seed=2"
    bad.mkdir()
    (bad / "in-the-way.txt").write_text("not a run")
    done = call("ablate", config, "--run", folder, "--json")
    assert done.returncode == 1
    result = json.loads(done.stdout)
    states = {arm["name"]: arm["status"] for arm in result["arms"]}
    assert states.pop("vocab_size=300,seed=2") == "failed"
    assert set(states.values()) == {"done"}
    assert "no run folder" in next(arm["error"] for arm in result["arms"] if arm["error"])
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert "vocab_size=300,seed=2" in (folder / "report.html").read_text()


@pytest.mark.long
def test_totals_are_matched_by_solving_for_width(cache: Path) -> None:
    """With published tokenizers, the smaller vocabulary gets the wider model."""
    model = {"width": 64, "depth": 2, "heads": 2}
    base = {**BASE, "corpus": {"name": "kjv"}, "model": model, "tokenizer": {"vocab_size": 1024}}
    grid = {"tokenizer.vocab_size": [512, 4096]}
    arms, _ = apply_controls(study(base=base, grid=grid, controls={"parameters": "total"}), cache)
    target = count_parameters(validate(ModelConfig, model), 1024).total
    for arm in arms:
        assert arm.plan.parameters.total == pytest.approx(target, rel=0.06)
    assert arms[0].config.model.width > 64 > arms[1].config.model.width


def test_bodies_are_matched_when_depth_varies(cache: Path) -> None:
    base = {**BASE, "model": {"width": 64, "depth": 2, "heads": 2}}
    arms, _ = apply_controls(study(base=base, grid={"model.depth": [2, 4]}), cache)
    bodies = [arm.plan.parameters.body for arm in arms]
    assert bodies[1] == pytest.approx(bodies[0], rel=0.1)
    assert arms[1].config.model.width < arms[0].config.model.width


@pytest.mark.parametrize("unit", ["tokens", "flops", "bytes"])
def test_budgets_are_matched_in_the_unit_asked_for(cache: Path, unit: str) -> None:
    arms, _ = apply_controls(study(controls={"budget": unit}), cache)
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


def test_a_base_tokenizer_that_no_arm_uses_need_not_be_possible(cache: Path) -> None:
    base = {**BASE, "tokenizer": {"vocab_size": 5_000}, "context": {"tokens": 32}}
    grid = {"tokenizer": [{"kind": "byte"}, {"kind": "bpe", "vocab_size": 300}]}
    arms, failed = apply_controls(study(base=base, grid=grid), cache)
    assert [arm.plan.tokenizer.vocab_size for arm in arms] == [258, 300]
    assert failed == []
    with pytest.raises(UserError, match=r"^base: tokenizer.vocab_size: 5000 .*as_given"):
        apply_controls(study(base=base, grid=grid, controls={"budget": "tokens"}), cache)


@pytest.mark.long
def test_an_arm_that_cannot_be_run_fails_alone(cache: Path, tmp_path: Path) -> None:
    config = tmp_path / "study.yaml"
    config.write_text(json.dumps({"base": BASE, "grid": {"tokenizer.vocab_size": [5000, 290]}}))
    done = call("ablate", config, "--run", tmp_path / "study", "--json")
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert [arm["status"] for arm in result["arms"]] == ["failed", "done"]
    assert "largest possible size" in result["arms"][0]["error"]
    assert len(result["held_fixed"]) > 5
    assert "1 of 2 arms did not finish" in (tmp_path / "study" / "report.html").read_text()


def test_a_study_of_which_no_arm_can_be_run_says_why_of_each(cache: Path, tmp_path: Path) -> None:
    impossible = study(grid={"tokenizer.vocab_size": [5000, 6000]})
    result = run_study(impossible, tmp_path / "study")
    assert [arm["status"] for arm in result["arms"]] == ["failed", "failed"]
    assert result["arms"][1]["error"].startswith("tokenizer.vocab_size: 6000")
    assert "6000" in write_report(tmp_path / "study").read_text()


def test_a_corpus_that_is_not_there_fails_the_study(cache: Path) -> None:
    base = {**BASE, "corpus": {"name": "files", "paths": ["nowhere.txt"]}}
    with pytest.raises(UserError, match=r"^nowhere.txt"):
        apply_controls(study(base=base), cache)


@pytest.mark.long
def test_a_damaged_file_fails_its_arm_and_a_missing_evaluation_is_made_again(
    finished: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished[0], tmp_path / "study")
    first, second, third, _ = finished[1]["arms"]
    (folder / first["folder"] / "run.json").write_text("{")
    test_of = {
        arm["folder"]: next((folder / arm["folder"] / "evaluations").glob("markov-test-*.json"))
        for arm in (second, third)
    }
    test_of[second["folder"]].write_text("{")
    test_of[third["folder"]].unlink()
    result = run_study(study(controls={"context": "bytes"}), folder)
    assert [arm["status"] for arm in result["arms"]] == ["failed", "failed", "done", "done"]
    assert "run.json" in result["arms"][0]["error"]
    assert "markov-test" in result["arms"][1]["error"]
    assert result["arms"][2]["evaluations"] == third["evaluations"]
    assert write_report(folder).is_file()


def test_values_are_told_apart_where_names_are_not() -> None:
    paths = ["x" * 70 + "1", "x" * 70 + "2", "a/b", "a b"]
    names = [arm.name for arm in expand(study(grid={"tokenizer.path": paths}))]
    assert len(set(names)) == 4
    again = [arm.name for arm in expand(study(grid={"tokenizer.path": paths[::-1]}))]
    assert again == names[::-1]


def test_equal_arms_are_refused_however_they_are_written() -> None:
    with pytest.raises(UserError, match="twice"):
        expand(study(grid={"tokenizer": [{"kind": "byte"}, {"kind": "byte", "vocab_size": 258}]}))


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> tuple[str, str]:
    """One BPE of 300 pieces lies in two folders."""
    config = validate(TokenizerConfig, {"kind": "bpe", "vocab_size": 300})
    corpus = open_corpus(study().base.corpus, cache)
    folders = [tmp_path_factory.mktemp("tokenizer") / name for name in ("one", "other")]
    for folder in folders:
        obtain_tokenizer(config, corpus, cache).save(folder)
    return str(folders[0]), str(folders[1])


GIVEN = {"budget": "as_given", "parameters": "as_given"}


def test_a_study_over_sizes_of_a_tokenizer_that_is_given_is_refused(
    cache: Path, tokenizers: tuple[str, str]
) -> None:
    base = {**BASE, "tokenizer": {"kind": "bpe", "path": tokenizers[0]}}
    words = r"^grid, arm vocab_size=512: tokenizer.vocab_size: 512 .*tokenizer.path .* has 300"
    with pytest.raises(UserError, match=words):
        apply_controls(study(base=base, grid={"tokenizer.vocab_size": [300, 512]}), cache)
    with pytest.raises(UserError, match=r"^grid, arm kind=unigram: tokenizer.kind: .unigram"):
        apply_controls(study(base=base, grid={"tokenizer.kind": ["bpe", "unigram"]}), cache)
    arms, failed = apply_controls(study(base=base, grid={"seed": [0, 1]}, controls=GIVEN), cache)
    assert len(arms) == 2
    assert not failed


def test_arms_that_would_train_the_same_are_refused_by_name(
    cache: Path, tokenizers: tuple[str, str]
) -> None:
    first, second = ({"path": path} for path in tokenizers)
    bpe = {"kind": "bpe", "vocab_size": 300}
    brier = [{"kind": "cross_entropy"}, {"kind": "brier", "weight": 0.0}]
    grids: list[dict[str, list[Any]]] = [
        {"tokenizer": [first, second]},
        {"tokenizer": [first, bpe]},
        {"budget": [{"steps": 24}, {"tokens": 24 * 4 * 32}]},
        {"context": [{"bytes": 91}, {"bytes": 92}]},
        {"model.mlp_ratio": [None, 2.6666666]},
        {"model.kv_heads": [None, 2]},
        {"model.head_size": [None, 8]},
        {"temperature": [{"kind": "mlp"}, {"kind": "mlp", "hidden": 16}]},
        {"loss": [brier[:1], brier]},
    ]
    base = {**BASE, "context": {"tokens": 32}}
    for grid in grids:
        names = [arm.name for arm in expand(study(base=base, grid=grid))]
        with pytest.raises(UserError) as error:
            apply_controls(study(base=base, grid=grid, controls=GIVEN), cache)
        assert str(error.value).startswith(f"grid: arms {names[0]} and {names[1]} would train")


def test_a_grid_over_a_setting_without_effect_is_refused() -> None:
    recurrent = {**BASE, "model": {"kind": "lstm", "width": 16, "depth": 1}}
    with pytest.raises(UserError, match=r"^grid, arm heads=2: model.heads: 2 has no effect with"):
        expand(study(base=recurrent, grid={"model.heads": [2, 4]}))
    decaying = {**BASE, "optimizer": {"schedule": "wsd", "decay_fraction": 0.3}}
    with pytest.raises(UserError, match=r"^base.optimizer.decay_fraction: 0.3 has no effect"):
        expand(study(base=decaying, grid={"optimizer.schedule": ["cosine", "constant"]}))
    assert len(expand(study(base=decaying, grid={"optimizer.schedule": ["cosine", "wsd"]}))) == 2
    spared = {"optimizer.weight_decay": [0], "optimizer.decay_embeddings": [True, False]}
    with pytest.raises(UserError, match=r"decay_embeddings: true has no effect with .*decay: 0"):
        expand(study(grid=spared))
    with pytest.raises(UserError, match=r"grid: budget.tokens: replaces budget.steps"):
        expand(study(grid={"budget.steps": [3, 4], "budget.tokens": [500]}))
    with pytest.raises(UserError, match=r"grid: train.replicas: says how"):
        expand(study(grid={"train.replicas": [2]}))
    with pytest.raises(UserError, match=r"accumulate=2 comes twice: .* as accumulate=1"):
        expand(study(grid={"batch.accumulate": [1, 2]}))


def test_parameters_that_could_not_be_matched_are_not_called_so(cache: Path) -> None:
    """A layer is the step in which depth goes; base and arm are then 12 % apart."""
    base = {**BASE, "model": {"width": 32, "depth": 3, "heads": 2}}
    controls = {"parameters": "total", "solve_for": "depth"}
    for widths in ([32, 48], [48]):
        whole = study(base=base, grid={"model.width": widths}, controls=controls)
        arms, _ = apply_controls(whole, cache)
        rows = {row["quantity"]: row for row in held_fixed(whole, arms)}
        row = rows["Parameters, total"]
        assert row["rule"].startswith("not matched: 11.6 % apart, the base's 47,232 counted")
        assert not row["held"]
        assert row["smallest"] == min(arm.plan.parameters.total for arm in arms)
        assert rows["Parameters, body"]["rule"] == "free"
    same = study(base=base, grid={"seed": [0, 1]}, controls=controls)
    rows = {row["quantity"]: row for row in held_fixed(same, apply_controls(same, cache)[0])}
    assert rows["Parameters, total"]["rule"] == "matched, solving for depth where it differs"
    assert rows["Parameters, total"]["held"]


def test_arms_are_named_by_what_varies() -> None:
    grid = {"tokenizer": [{"kind": "byte"}, {"kind": "bpe", "vocab_size": 300}], "seed": [3]}
    assert [arm.name for arm in expand(study(grid=grid))] == [
        "tokenizer=byte,seed=3",
        "tokenizer=bpe-300,seed=3",
    ]


@pytest.mark.parametrize(
    "grid", [{"log_every": [5, 6]}, {"checkpoints.every": [6, 8]}, {"checkpoints.keep": [1, 2]}]
)
def test_arms_that_differ_in_when_they_write_are_the_same(cache: Path, grid: Any) -> None:
    with pytest.raises(UserError, match="would train and measure the very same"):
        apply_controls(study(grid=grid), cache)
