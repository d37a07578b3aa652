"""Steps, schedules and budgets; and what happens to a run when something is wrong with it."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, call, tiny

from calibtrain.config import OptimizerConfig, to_yaml
from calibtrain.data.batches import Batch
from calibtrain.errors import UserError
from calibtrain.evaluation import evaluate_run, train_run
from calibtrain.models import build
from calibtrain.parallel.flops import training_flops
from calibtrain.training.loop import NonFiniteLossError
from calibtrain.training.optimizer import decay_mask, learning_rate_schedule, make_optimizer
from calibtrain.training.plan import make_plan
from calibtrain.training.state import initial_state
from calibtrain.training.step import make_train_step


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A tiny run that is done."""
    path = tmp_path_factory.mktemp("finished") / "run"
    assert train_run(tiny(), path).status == "done"
    return path


def copy_of(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder / "run")
    return folder / "run"


def config_file(folder: Path, **changes: Any) -> Path:
    path = folder / "config.yaml"
    path.write_text(to_yaml(tiny(**changes)))
    return path


def refused(*arguments: str | Path) -> str:
    """The one line with which the command line refuses."""
    done = call(*arguments)
    assert done.returncode == 2, (done.returncode, done.stderr)
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


# --- the step ------------------------------------------------------------------------------------


def one_step(accumulate: int, weights: np.ndarray) -> tuple[Any, Any]:
    config = tiny()
    network = build(config.model, 40)
    optimizer = make_optimizer(config.optimizer, 10)
    state = initial_state(network, optimizer, 0)
    rng = np.random.default_rng(0)
    tokens, labels = rng.integers(0, 40, (2, 8, 16))
    batch = Batch(*map(jnp.asarray, (tokens, labels, np.zeros((8, 16), int), weights)))
    step = jax.jit(make_train_step(network, optimizer, accumulate=accumulate))
    return step(state, batch)


def test_gradient_accumulation_changes_nothing() -> None:
    """Also when the micro-batches hold unequal weights: never a mean of means."""
    weights = np.ones((8, 16), np.float32)
    weights[:3] = 0
    (one, metrics), (four, others) = one_step(1, weights), one_step(4, weights)
    np.testing.assert_allclose(metrics["loss"], others["loss"], rtol=1e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], others["gradient_norm"], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one.running), jax.tree.leaves(four.running), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_norms_biases_and_embeddings_are_not_decayed() -> None:
    params = build(tiny(model={"kind": "lstm"}).model, 40).init(jax.random.key(0))
    mask = jax.tree_util.tree_flatten_with_path(decay_mask(params, embeddings=False))[0]
    decayed = {jax.tree_util.keystr(path) for path, value in mask if value}
    assert decayed
    assert all("kernel" in name for name in decayed)
    assert decay_mask(params, embeddings=True)["vocabulary"]["embedding"]


@pytest.mark.parametrize("kind", ["cosine", "wsd", "constant"])
def test_schedules_rise_to_the_peak_and_end_where_they_should(kind: Any) -> None:
    config = OptimizerConfig(schedule=kind, learning_rate=1.0, warmup_fraction=0.1)
    rates = np.array([float(learning_rate_schedule(config, 1000)(step)) for step in range(1000)])
    assert rates[0] == pytest.approx(0.01)
    assert rates[99] == pytest.approx(1.0)
    assert (np.diff(rates[100:]) <= 1e-9).all()
    assert rates[-1] == pytest.approx({"constant": 1.0}.get(kind, 0.1), abs=0.01)
    if kind == "wsd":
        assert rates[790] == pytest.approx(1.0)
        assert rates[900] == pytest.approx(0.55, abs=0.01)


def test_a_budget_means_the_same_in_every_currency(cache: Path) -> None:
    plan = make_plan(tiny(budget={"bytes": 5_000}), cache)
    by_tokens = make_plan(tiny(budget={"tokens": plan.budget.tokens}), cache)
    by_flops = make_plan(tiny(budget={"flops": plan.budget.flops}), cache)
    assert plan.budget == by_tokens.budget
    assert by_flops.budget.tokens == plan.budget.tokens
    assert 5_000 <= plan.budget.bytes < 5_020
    per_token = training_flops(plan.config.model, plan.tokenizer.vocab_size, plan.context)
    assert plan.budget.flops == pytest.approx(per_token * plan.budget.tokens)


def test_a_context_in_bytes_reaches_equally_far_in_every_vocabulary(cache: Path) -> None:
    for size in (280, 310):
        plan = make_plan(tiny(context={"bytes": 200}, tokenizer={"vocab_size": size}), cache)
        assert plan.context * plan.store.bytes_per_token == pytest.approx(200, rel=0.02)


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_diverging_run_stops_with_the_step_and_keeps_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calibtrain.training import loop

    make = loop.make_train_step

    def overflowing(*arguments: Any, **options: Any) -> Any:
        step = make(*arguments, **options)

        def run(state: Any, batch: Any) -> Any:
            after, metrics = step(state, batch)
            bad = state.step >= 9
            return after, {**metrics, "loss": jnp.where(bad, jnp.nan, metrics["loss"])}

        return run

    monkeypatch.setattr(loop, "make_train_step", overflowing)
    run = tmp_path / "run"
    with pytest.raises(NonFiniteLossError) as error:
        train_run(tiny(), run)
    message = str(error.value)
    assert "nan at step 10;" in message
    assert "last good checkpoint is step 6" in message
    assert "optimizer.learning_rate" in message
    assert evaluate_run(run, limit=500).about["step"] == 6


def test_another_configuration_is_refused_by_key(finished: Path, tmp_path: Path) -> None:
    line = refused("train", config_file(tmp_path, seed=7), "--run", finished)
    assert "seed (0 there, 7 asked)" in line


def test_another_tokenizer_is_refused(finished: Path, tmp_path: Path, cache: Path) -> None:
    run = copy_of(finished, tmp_path)
    other = make_plan(tiny(tokenizer={"vocab_size": 300}), cache).tokenizer
    shutil.rmtree(run / "tokenizer")
    other.save(run / "tokenizer")
    line = refused("train", config_file(tmp_path), "--run", run)
    assert "another tokenizer" in line
    assert other.hash in line
    np.save(run / "tokenizer" / "target_counts.npy", np.ones(300, int))
    assert "another tokenizer" in refused("evaluate", run)


def test_a_truncated_checkpoint_is_named_and_the_one_before_can_be_used(
    finished: Path, tmp_path: Path
) -> None:
    run = copy_of(finished, tmp_path)
    latest = run / "checkpoints" / "24"
    files = [path for path in latest.rglob("*") if path.is_file() and "checksums" not in path.name]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    line = refused("evaluate", run)
    assert str(latest) in line
    assert largest.name in line
    assert "remove that folder" in line
    assert str(latest) in refused("train", config_file(tmp_path), "--run", run)
    shutil.rmtree(latest)
    assert call("train", config_file(tmp_path), "--run", run).returncode == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"corpus": {"name": "files", "paths": ["nowhere/*.txt"]}}, ["nowhere/*.txt"]),
        ({"tokenizer": {"vocab_size": 50_000}}, ["tokenizer.vocab_size", "50000", "largest"]),
        ({"context": {"tokens": 900_000}}, ["context", "900000"]),
        ({"tokenizer": {"path": "nowhere"}}, ["nowhere"]),
    ],
    ids=["missing-file", "large-vocabulary", "long-context", "missing-tokenizer"],
)
def test_what_cannot_be_had_is_said_and_leaves_no_run(
    tmp_path: Path, changes: Any, words: list[str]
) -> None:
    if "corpus" in changes:
        changes = {"corpus": {**changes["corpus"], "markov": TINY["corpus"]["markov"]}}
    line = refused("train", config_file(tmp_path, **changes), "--run", tmp_path / "runs" / "x")
    for word in words:
        assert word in line, line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("text", ["", "short"])
def test_an_empty_or_tiny_corpus_is_said(tmp_path: Path, text: str) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(text and f"{text} {number}")
    path = tmp_path / "config.yaml"
    changed = {**TINY, "corpus": {"name": f"files:{tmp_path}/*.txt"}, "tokenizer": {"kind": "byte"}}
    path.write_text(json.dumps(changed))
    line = refused("train", path, "--run", tmp_path / "run")
    assert "context" in line or "empty" in line or "distinct" in line, line
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    line = refused("train", config_file(tmp_path), "--run", tmp_path / "mine")
    assert "no run folder" in line
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert "no run folder" in refused("evaluate", tmp_path / "mine")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    line = refused("train", config_file(tmp_path), "--run", tmp_path / "file" / "run")
    assert "cannot write" in line
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_disk_that_is_full_is_said_and_leaves_no_half_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000))
    with pytest.raises(UserError, match=r"checkpoints/6: cannot write: the disk is full"):
        train_run(tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_evaluating_without_a_checkpoint_is_said(finished: Path, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    shutil.rmtree(run / "checkpoints")
    assert "no checkpoint" in refused("evaluate", run)
    with pytest.raises(UserError, match="split"):
        evaluate_run(finished, split="trian")
