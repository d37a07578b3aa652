"""Heads fitted to a run that is done: files, refusals, and figures that two ways agree on."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny
from heads import head_config
from known_states import MODEL, make

from calibtrain.cli import main as cli
from calibtrain.config import temperature
from calibtrain.errors import UserError
from calibtrain.evaluation import evaluate_run, train_run
from calibtrain.fitting.balanced_loss import share_right
from calibtrain.fitting.global_temperature import fit_global_temperature
from calibtrain.fitting.head import Recipe, fit_head
from calibtrain.fitting.output_layer import mean_over
from calibtrain.fitting.thermometer import (
    ThermometerRecipe,
    fit_thermometer,
    task_temperature,
)
from calibtrain.losses import SelectiveSmoothing
from calibtrain.metrics.signature import differences, parse_signature
from calibtrain.posthoc import fit, fit_temperature_head
from calibtrain.posthoc.compare import compare_heads
from calibtrain.posthoc.comparison_rows import COMPARED
from calibtrain.posthoc.hidden_text import read_hidden_text
from calibtrain.posthoc.listing import describe_heads
from calibtrain.report import write_report
from calibtrain.runs.loading import opened
from calibtrain.storage.documents import sealed, unsealed
from calibtrain.temperature import make_head
from calibtrain.temperature.bounded import raw_of
from calibtrain.temperature.saved_head import PARAMETERS, head_names, read_head
from calibtrain.temperature.thermometer import Thermometer

QUICK = Recipe(steps=40, tokens=256, evaluations=4)


SHORT = {"mean_document_words": 60.0}
"""So that each split holds five documents and more, and differences have intervals."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    path = tmp_path_factory.mktemp("posthoc") / "run"
    config = tiny(
        corpus={"markov": {"words": 24, "successors": 4, "bytes": 60_000} | SHORT},
        budget={"steps": 12},
        optimizer={"learning_rate": 0.03},
        evaluation={"every": 12, "bytes": 300, "final_bytes": 300, "final_splits": ["test"]},
    )
    assert train_run(config, path).status == "done"
    return path


def test_what_a_fit_says_is_what_an_evaluation_finds(run: Path) -> None:
    """The fit reads kept states, the evaluation runs the model with the head in it."""
    fitted = fit_temperature_head(run, "linear", recipe=QUICK)
    about = fitted.about
    assert about["nll_after"] < about["nll_before"]
    plain = evaluate_run(run, split="validation")
    found = evaluate_run(run, split="validation", temperature="linear")
    assert plain.results["nll"] == pytest.approx(about["nll_before"], rel=1e-6)
    assert found.results["nll"] == pytest.approx(about["nll_after"], rel=1e-6)
    assert found.results["accuracy"] == plain.results["accuracy"]
    assert about["fitted_on"]["tokens"] == plain.results["tokens"]
    assert about["parameters"] == 17
    assert "|T:linear|" in found.results["signatures"]["ece"]
    names = [path.name for path in (run / "evaluations").glob("*_T-linear.json")]
    assert names == ["markov-validation-12_whole_T-linear.json"]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["matrix", "low_rank_matrix"])
def test_a_fitted_matrix_is_the_unembedding_that_an_evaluation_multiplies_by(
    run: Path, kind: str
) -> None:
    about = fit_temperature_head(run, kind, recipe=QUICK).about
    assert about["nll_after"] < about["nll_before"]
    found = evaluate_run(run, split="validation", temperature=kind)
    assert found.results["nll"] == pytest.approx(about["nll_after"], rel=1e-6)


def test_a_matrix_of_too_many_entries_is_refused_before_any_text_is_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temperature, "LARGEST_MATRIX", 20)
    for option, call in (
        ("--heads", lambda: compare_heads(run, heads=["global", "matrix"])),
        ("--head", lambda: fit_temperature_head(run, "matrix")),
    ):
        with pytest.raises(UserError, match=rf"^{option}: .* up to 20 .*; use low_rank_matrix$"):
            call()


@pytest.mark.long
def test_states_that_are_not_kept_give_the_same_temperature(run: Path, cache: Path) -> None:
    said: list[str] = []
    anew = fit_temperature_head(run, "global", name="anew", limit=900, keep=False, say=said.append)
    assert "computed anew" in said[0]
    kept = fit_temperature_head(run, "global", limit=900, say=said.append)
    assert "kept in the cache" in said[1]
    assert kept.about["value"] == pytest.approx(anew.about["value"], rel=1e-4)
    assert list((cache / "hidden").iterdir())
    heads = run / "temperature"
    assert {read_head(heads, name).name for name in head_names(heads)} >= {"anew", "global"}


def test_another_checkpoint_is_refused(run: Path, tmp_path: Path) -> None:
    fit_temperature_head(run, "global", name="bound", recipe=QUICK)
    copy = shutil.copytree(run, tmp_path / "run")
    evaluate_run(copy, limit=300, temperature="bound")  # of a copy it is the same
    shutil.rmtree(copy / "checkpoints" / "12")
    with pytest.raises(UserError, match=r"bound was fitted to another checkpoint \(step 12.*6"):
        evaluate_run(copy, limit=300, temperature="bound")


def test_a_damaged_head_is_refused(run: Path, tmp_path: Path) -> None:
    fit_temperature_head(run, "global", name="whole")
    copy = shutil.copytree(run, tmp_path / "run")
    path = copy / "temperature" / "whole" / PARAMETERS
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"parameters\.npz: is damaged"):
        evaluate_run(copy, limit=300, temperature="whole")


@pytest.mark.long
def test_a_list_marks_what_cannot_be_used(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("temperature"))
    for name in ("changed", "cut", "edited", "nameless", "whole"):
        fit_temperature_head(copy, "global", name=name)
    heads = copy / "temperature"
    parameters = heads / "cut" / PARAMETERS
    parameters.write_bytes(parameters.read_bytes()[:-3])
    about = json.loads((heads / "edited" / "head.json").read_text())
    edited = sealed({**unsealed(about), "nll_after": "low"})
    (heads / "edited" / "head.json").write_text(json.dumps(edited))
    (heads / "changed" / "head.json").write_text(json.dumps({**about, "nll_after": 0.5}))
    (heads / "nameless" / "head.json").unlink()
    (heads / "emptied").mkdir()
    found = {head["name"]: head for head in describe_heads(copy)}
    whole = json.loads((heads / "whole" / "head.json").read_text())
    assert found["whole"] == {**unsealed(whole), "usable": True}
    problems = {name: head["problem"] for name, head in found.items() if not head["usable"]}
    assert problems.keys() == {"changed", "cut", "edited", "emptied", "nameless"}
    assert "something was changed" in problems["changed"]
    assert "checksum" in problems["cut"]
    assert "nll_after is 'low'" in problems["edited"]
    assert "has no head.json" in problems["nameless"]
    assert "has no head.json" in problems["emptied"]
    with pytest.raises(UserError, match=r"there are: changed, cut, edited, whole"):
        evaluate_run(copy, temperature="none of them")
    shutil.rmtree(copy / "checkpoints" / "12")
    monkeypatch.setattr(sys, "argv", ["calibtrain", "temperature", "list", str(copy)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    said = capsys.readouterr()
    assert "whole (another checkpoint)" in said.out
    assert "cut (damaged)" in said.out
    assert "whole: cannot be used: was fitted to another checkpoint (step 12; " in said.err
    (head,) = [head for head in describe_heads(copy) if head["name"] == "whole"]
    assert not head["usable"]


def test_a_model_without_finite_probabilities_is_told_in_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*args: Any, **kept: Any) -> Any:
        text = read_hidden_text(*args, **kept)
        broken = dataclasses.replace(
            text.output_layer, unembedding=text.output_layer.unembedding * np.nan
        )
        return dataclasses.replace(text, output_layer=broken)

    monkeypatch.setattr(fit, "read_hidden_text", nothing)
    for kind in ("global", "linear"):
        with pytest.raises(UserError, match=r"run: .*nan.*learning_rate") as refusal:
            fit_temperature_head(run, kind, name="broken", recipe=QUICK, limit=300)
        assert "\n" not in str(refusal.value)


def test_a_comparison_blames_its_own_option(run: Path) -> None:
    with pytest.raises(UserError, match=r"^--heads: 'nonsense' is not allowed; allowed: global"):
        compare_heads(run, heads=["nonsense"])
    with pytest.raises(UserError, match=r"^--heads: '' is not allowed"):
        compare_heads(run, heads=["global", ""])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "warm"}, "--head: 'warm' is not allowed; allowed: global, vector"),
        ({"split": "test"}, "--split: 'test' is not allowed"),
        ({"loss": "ece"}, "--loss: 'ece' is not allowed; allowed: nll"),
        ({"name": "1e5"}, "--name: '1e5' is not allowed"),
        ({"name": "nan"}, "--name: 'nan' is not allowed"),
        ({"name": "../x"}, "--name: '../x' is not allowed"),
        ({"kind": "adaptive", "settings": {"heads": 5}}, r"--head: model.width \(16\)"),
        ({"kind": "mlp", "settings": {"hidden": 0}}, "--head mlp: hidden: 0"),
        ({"kind": "vector", "balanced": True}, "--balanced: is not allowed with --head vector"),
    ],
)
def test_what_cannot_be_fitted_is_told_and_leaves_nothing(
    run: Path, changes: dict[str, Any], words: str
) -> None:
    before = {path for path in run.rglob("*") if path.name != ".lock"}
    with pytest.raises(UserError, match=words):
        fit_temperature_head(run, **{"kind": "global", **changes})
    assert {path for path in run.rglob("*") if path.name != ".lock"} == before


def test_a_name_is_not_taken_twice(run: Path) -> None:
    first = fit_temperature_head(run, "global", name="once")
    with pytest.raises(UserError, match="once is there already"):
        fit_temperature_head(run, "global", name="once")
    again = fit_temperature_head(run, "global", name="once", replace=True)
    assert again.about["value"] == first.about["value"]


@pytest.mark.long
def test_a_balanced_temperature_is_the_lowest_of_the_balanced_nll(run: Path) -> None:
    """Not that of the nll; and of temperatures about it none is better."""
    recipe = Recipe(steps=150, tokens=1024, learning_rate=0.03, held_out=0.0)
    plain = fit_temperature_head(run, "global", name="plain", limit=2_000).about
    fitted = fit_temperature_head(
        run, "global", name="even", limit=2_000, balanced=True, recipe=recipe
    ).about
    head = make_head(head_config("global"), tiny().model, 290)
    with opened(run) as saved:
        text = read_hidden_text(saved, None, "validation", 2_000)
        share = share_right(text.output_layer, text.states)
        assert 0.0 < share < 0.5  # so that right tokens weigh more, and T falls
        score = text.output_layer.scorer(head, ("nll", "correct"))

        def balanced(temperature: float) -> float:
            def loss(stats: Any) -> Any:
                weight = np.where(stats.correct > 0, 0.5 / share, 0.5 / (1 - share))
                return stats.nll * weight

            raw = {"raw": np.float32(raw_of(temperature, 10.0))}
            return mean_over(score, raw, text.states, loss)

        found = fitted["value"]
        assert found < 0.97 * plain["value"]
        lowest = balanced(found)
        assert lowest < balanced(plain["value"])
        for factor in (0.9, 0.95, 1.05, 1.1):
            assert lowest < balanced(found * factor)
    assert fitted["nll_after"] > plain["nll_after"]


def test_damaged_hidden_states_are_computed_again(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(run, tmp_path) as saved:
        expected = np.array(read_hidden_text(saved, None, "validation", 500).states.hidden)
        (path,) = tmp_path.glob("hidden/*/hidden.bin")
        whole = path.read_bytes()
        nan = np.full(8, np.nan, np.float32).tobytes()
        for damaged, words in (
            (bytes(40_000).ljust(len(whole), whole[-1:])[: len(whole)], "hidden.bin was changed"),
            (nan + whole[len(nan) :], "hidden.bin was changed"),
            (whole[:1000], f"hidden.bin has 1,000 bytes, not {len(whole):,}"),
        ):
            path.write_bytes(damaged)
            caplog.clear()
            found = read_hidden_text(saved, None, "validation", 500)
            np.testing.assert_array_equal(np.array(found.states.hidden), expected)
            assert caplog.messages == [
                f"{path.parent}: was damaged ({words}); it is made again",
            ]
        path.write_bytes(nan)
        caplog.clear()
        # the cache is not read, so that it is not mended
        found = read_hidden_text(saved, None, "validation", 500, keep=False)
        assert not found.kept
        np.testing.assert_allclose(np.array(found.states.hidden[:]), expected, rtol=1e-3, atol=1e-5)
        (path.parent / "seal.json").unlink()
        read_hidden_text(saved, None, "validation", 500)
        assert "has no checksums, as an earlier version made it; it is made again" in caplog.text


def test_a_comparison_has_paired_differences_and_a_place_in_the_report(run: Path) -> None:
    found = compare_heads(run, heads=["global", "linear"], recipe=QUICK)
    none, *heads = found["corpora"][0]["rows"]
    assert none["head"] == "none"
    assert "differences" not in none
    assert found["corpora"][0]["documents"] >= found["corpora"][0]["effective_documents"] >= 5
    for row in heads:
        assert row["differences"].keys() == set(COMPARED)
        for key, apart in row["differences"].items():
            assert apart["difference"] == pytest.approx(row[key] - none[key], abs=1e-4), key
            assert apart["lower"] <= apart["upper"]
        assert row["accuracy"] == none["accuracy"]
    evaluated = evaluate_run(run).results
    for key, signature in none["signatures"].items():
        assert none[key] == pytest.approx(evaluated[key], rel=1e-5), key
        assert signature == evaluated["signatures"][key]
    assert {"nll", "ece", "smooth_calibration_error"} <= none["signatures"].keys()
    for row in heads:
        apart = differences(*(parse_signature(each["signatures"]["ece"]) for each in (none, row)))
        assert apart == {"T": ("1", row["head"])}
    written = run / "temperature" / "comparison.json"
    assert unsealed(json.loads(written.read_text())) == found
    page = write_report(run).read_text()
    assert "Temperature heads" in page
    assert f'data-value="{heads[1]["nll"]!r}"' in page
    assert 'id="heads"' in page
    assert f"<code>{heads[1]['signatures']['ece']}</code>" in page.replace("<wbr>", "")


def test_selective_smoothing_raises_the_nll_of_a_model_that_is_calibrated() -> None:
    """It is not proper; fitted by gradients to states whose labels are the model's own."""
    states, output_layer, _ = make(40, 16, lambda hidden: np.ones(hidden.shape[:2]), seed=1)
    head = make_head(head_config("global"), MODEL, 12)
    assert head is not None
    recipe = Recipe(steps=100, tokens=640)
    fitted = fit_head(head, output_layer, states, SelectiveSmoothing(0.5), recipe, proper=False)
    assert fitted.nll_after > fitted.nll_before + 0.01


@pytest.mark.long
def test_a_thermometer_reads_a_task_without_labels() -> None:
    """Tasks differ by what their logits are multiplied by, which shows in their states."""
    factors = np.array([0.5, 0.7, 1.0, 1.9, 2.6, 1.4])  # the last one is left out
    rows = 20
    of_row = np.repeat(factors, rows)
    states, output_layer, _ = make(
        len(of_row), 24, lambda hidden: np.tile(of_row[:, None], (1, hidden.shape[1])), seed=2
    )
    tasks = np.arange(len(of_row)).reshape(len(factors), rows)
    source = Thermometer(MODEL.width, 16, 10.0)
    recipe = ThermometerRecipe(steps=600, tokens=256, learning_rate=3e-3)
    params = fit_thermometer(source, output_layer, states, tasks[:-1], recipe)
    left_out = states.only(tasks[-1])
    found = task_temperature(source, params, left_out)
    own = fit_global_temperature(output_layer, left_out).temperature
    assert own == pytest.approx(1.4, rel=0.15)
    assert abs(np.log(found / own)) < 0.5 * abs(np.log(own))
