"""Steps, schedules and budgets; and what happens to a run when something is wrong with it."""

import dataclasses
import json
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, call, tiny

from calibtrain import losses
from calibtrain.config import OptimizerConfig, load_config, to_yaml
from calibtrain.data.batches.stream import Batch
from calibtrain.errors import NonFiniteError, UserError
from calibtrain.evaluation import evaluate_run, train_run
from calibtrain.models import build
from calibtrain.models.pieces import LEAST_PIECE
from calibtrain.models.size import training_flops
from calibtrain.readout import FIELDS, readout
from calibtrain.runs.checkpoint import Identity, remove_unfinished, save, steps_saved
from calibtrain.runs.folder import RunFolder
from calibtrain.training.coupled import (
    LEAST_ROWS,
    coupled_terms,
    default_micro_batches,
)
from calibtrain.training.objective import Objective, Term
from calibtrain.training.optimizer import decay_mask, learning_rate_schedule, make_optimizer
from calibtrain.training.plan import make_plan
from calibtrain.training.state import initial_state
from calibtrain.training.step import TokenGradient, make_train_step


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    """A tiny run that is done."""
    return Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("finished") / "run"))


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
    gradient = TokenGradient(network, Objective(), micro_batches=accumulate)
    step = jax.jit(make_train_step(network, optimizer, gradient=gradient))
    return step(state, batch)


@pytest.mark.long
def test_statistics_that_are_asked_for_are_those_of_the_readout() -> None:
    network = build(tiny().model, 40)
    optimizer = make_optimizer(tiny().optimizer, 10)
    state = initial_state(network, optimizer, 0)
    rng = np.random.default_rng(0)
    tokens, labels = rng.integers(0, 40, (2, 4, 16))
    weights = rng.uniform(size=(4, 16)).astype(np.float32)
    batch = Batch(*map(jnp.asarray, (tokens, labels, np.zeros((4, 16), int), weights)))
    gradient = TokenGradient(network, Objective(), FIELDS, micro_batches=2)
    step = jax.jit(make_train_step(network, optimizer, gradient=gradient))
    hidden, unembedding, _ = network.apply(state.params, batch.tokens, batch.segments)
    wanted = readout(hidden, unembedding, batch.labels)
    after, metrics = step(state, batch)
    for name in FIELDS:
        own = jnp.sum(getattr(wanted, name) * batch.weights)
        np.testing.assert_allclose(metrics[f"sum/{name}"], own, rtol=1e-5, err_msg=name)
    assert after.running.keys() == state.running.keys()


@pytest.mark.long
def test_gradient_accumulation_changes_nothing() -> None:
    """Also when the micro-batches hold unequal weights: never a mean of means."""
    weights = np.ones((8, 16), np.float32)
    weights[:3] = 0
    (one, metrics), (four, others) = one_step(1, weights), one_step(4, weights)
    np.testing.assert_allclose(metrics["loss"], others["loss"], rtol=1e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], others["gradient_norm"], rtol=1e-5)
    for a, b in zip(jax.tree.leaves(one.running), jax.tree.leaves(four.running), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 6, 7, 16, 64])
@pytest.mark.parametrize("context", [8, 180, 256, 4096])
def test_a_cpu_cuts_a_batch_into_equal_pieces_that_are_not_small(rows: int, context: int) -> None:
    plain = Objective()
    pieces = default_micro_batches(rows, context, "cpu", plain)
    assert rows % pieces == 0
    assert pieces == 1 or rows // pieces * context >= LEAST_PIECE["cpu"]
    assert default_micro_batches(rows, context, "tpu", plain) == 1


@pytest.mark.parametrize("rows", [1, 6, 7, 16, 64])
@pytest.mark.parametrize("shares", [1, 2, 8])
@pytest.mark.parametrize("tokens", [32, 1024, None])
def test_the_first_piece_holds_all_that_batch_terms_look_at(
    rows: int, shares: int, tokens: int | None
) -> None:
    context = 180
    coupled = Objective(batch_terms=(Term("dca", losses.DCA(tokens=tokens)),))
    (some,) = coupled_terms(coupled)
    looked_at = some.rows(rows * shares, context)
    assert rows * shares % looked_at == 0
    if tokens is None:
        assert looked_at == rows * shares
    else:
        assert looked_at >= min(LEAST_ROWS, rows * shares)
        assert looked_at * context >= min(tokens, rows * shares * context)
    pieces = default_micro_batches(rows, context, "cpu", coupled, shares)
    assert rows % pieces == 0
    every = rows * shares // looked_at
    for step in range(every):
        own = np.arange(rows * shares).reshape(shares, rows) % every == step
        assert own.sum(axis=1).max() <= rows // pieces


@pytest.mark.long
def test_pieces_of_a_batch_need_less_memory() -> None:
    """Each is read, and its gradient taken, before the next."""
    config = tiny()
    network, optimizer = build(config.model, 40), make_optimizer(config.optimizer, 10)
    state = jax.eval_shape(lambda: initial_state(network, optimizer, 0))
    shapes = [jax.ShapeDtypeStruct((16, 256), kind) for kind in 3 * [jnp.int32] + [jnp.float32]]
    needed = []
    for pieces in (1, 2, 4):
        gradient = TokenGradient(network, Objective(), micro_batches=pieces)
        step = jax.jit(make_train_step(network, optimizer, gradient=gradient))
        compiled: Any = step.lower(state, Batch(*shapes)).compile()
        needed.append(compiled.memory_analysis().temp_size_in_bytes)
    assert needed[1] < 0.6 * needed[0]
    assert needed[2] < 0.9 * needed[1]


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
    for size in (280, 300):
        plan = make_plan(tiny(context={"bytes": 200}, tokenizer={"vocab_size": size}), cache)
        assert plan.context * plan.store.bytes_per_token == pytest.approx(200, rel=0.02)


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_diverging_run_stops_with_the_step_and_keeps_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calibtrain.training import program

    make = program.make_train_step

    def overflowing(*arguments: Any, **options: Any) -> Any:
        step = make(*arguments, **options)

        def run(state: Any, batch: Any) -> Any:
            after, metrics = step(state, batch)
            bad = state.step >= 9
            return after, {**metrics, "loss": jnp.where(bad, jnp.nan, metrics["loss"])}

        return run

    monkeypatch.setattr(program, "make_train_step", overflowing)
    run = tmp_path / "run"
    with pytest.raises(NonFiniteError) as error:
        train_run(tiny(), run)
    message = str(error.value)
    assert "nan at step 10;" in message
    assert "last good checkpoint is step 6" in message
    assert "optimizer.learning_rate" in message
    assert evaluate_run(run, limit=500).about["step"] == 6
    summary = json.loads((run / "run.json").read_text())
    assert (summary["status"], summary["step"], summary["error"]) == ("failed", 11, message)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("gradient_norm", "the gradient norm is nan at step 5"),
        pytest.param(
            "params",
            "a parameter, or its optimizer state, is not finite at step 6",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_is_no_number_is_neither_written_nor_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, words: str
) -> None:
    """Also where the loss does not see it: in the row of a token that never occurs."""
    from calibtrain.training import program

    make = program.make_train_step

    def unsound(*arguments: Any, **options: Any) -> Any:
        step = make(*arguments, **options)

        def run(state: Any, batch: Any) -> Any:
            after, metrics = step(state, batch)
            bad = jnp.where(state.step == 4, jnp.nan, 0.0)
            if what == "gradient_norm":
                return after, {**metrics, what: metrics[what] + bad}
            table = after.params["vocabulary"]["embedding"]
            vocabulary = {**after.params["vocabulary"], "embedding": table.at[0].add(bad)}
            params = {**after.params, "vocabulary": vocabulary}
            return dataclasses.replace(after, params=params), metrics

        return run

    monkeypatch.setattr(program, "make_train_step", unsound)
    with pytest.raises(NonFiniteError, match=words):
        train_run(tiny(model={"tied": False}), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "failed"


@pytest.mark.long
def test_results_that_are_no_numbers_are_not_written(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calibtrain.evaluation import event_space

    run = copy_of(finished, tmp_path)
    before = set((run / "evaluations").iterdir())
    monkeypatch.setattr(event_space, "compute_results", lambda sums, **options: {"nll": math.nan})
    with pytest.raises(UserError, match="markov-test: the nll is nan at step 24"):
        evaluate_run(run, limit=500)
    assert set((run / "evaluations").iterdir()) == before


def test_the_longest_run_and_the_rarest_log_that_are_allowed_do_train(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def observer(event: Any) -> None:
        if event["event"] == "saved":
            raise Enough

    most = 2**31 - 1
    config = tiny(
        budget={"steps": most},
        log_every=most,
        evaluation={"every": most},
        checkpoints={"every": 2},
        optimizer={"warmup_fraction": 1.0},
    )
    with pytest.raises(Enough):
        train_run(config, tmp_path / "run", observer=observer)
    assert steps_saved(tmp_path / "run" / "checkpoints") == [2]


@pytest.mark.long
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


@pytest.mark.long
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


def test_a_checkpoint_under_the_name_of_another_step_is_refused(
    finished: Path, tmp_path: Path
) -> None:
    run = copy_of(finished, tmp_path)
    shutil.rmtree(run / "checkpoints" / "24")
    (run / "checkpoints" / "6").rename(run / "checkpoints" / "20")
    with pytest.raises(UserError, match="checkpoints/20: holds the checkpoint of step 6;"):
        train_run(tiny(), run)
    with pytest.raises(UserError, match="checkpoints/20: holds the checkpoint of step 6;"):
        evaluate_run(run)


def test_only_what_a_killed_save_left_is_removed(tmp_path: Path) -> None:
    ours = ["5", "6.removed", "7.orbax-checkpoint-tmp", "8.orbax-checkpoint-tmp-1700000000"]
    theirs = ["10-best", "notes", "best.removed", "007"]
    for name in ours + theirs:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x")
    remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(theirs)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"corpus": {"name": "files", "paths": ["nowhere/*.txt"]}}, ["nowhere/*.txt"]),
        ({"tokenizer": {"vocab_size": 50_000}}, ["tokenizer.vocab_size", "50000", "largest"]),
        ({"context": {"tokens": 900_000}}, ["context", "900000"]),
        ({"tokenizer": {"path": "nowhere"}}, ["nowhere"]),
        ({"model": {**TINY["model"], "attention": "cudnn"}}, ["model.attention", "NVIDIA"]),
        ({"budget": {"steps": 10**18}}, ["budget", "steps", "2,147,483,647"]),
        ({"budget": {"bytes": 10**18}}, ["budget", "bytes", "2,147,483,647"]),
        ({"budget": {"flops": 1e30}}, ["budget", "flops", "2,147,483,647"]),
    ],
    ids=[
        *("missing-file", "large-vocabulary", "long-context", "missing-tokenizer"),
        *("no-gpu", "many-steps", "many-bytes", "many-flops"),
    ],
)
def test_what_cannot_be_had_is_said_and_leaves_no_run(
    tmp_path: Path, changes: Any, words: list[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({**TINY, **changes}))
    line = refused("train", path, "--run", tmp_path / "runs" / "x")
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


@pytest.mark.parametrize("place", ["file", "file/run", "/proc/nowhere/run", "x" * 300])
def test_a_place_that_cannot_be_a_run_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("in the way")
    with pytest.raises(UserError) as error:
        train_run(tiny(), Path(place))
    assert str(error.value).startswith(("x" * 300, place, str(Path(place).absolute().parent)))
    assert "another" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert Path("file").read_text() == "in the way"


def test_the_folder_one_is_in_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is the folder you are in"):
        train_run(tiny(), Path())
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_is_cleaned_and_what_a_living_one_makes_is_not(
    tmp_path: Path,
) -> None:
    dead, living = tmp_path / ".run.tmp-dead", tmp_path / ".run.tmp-living"
    for folder in (dead, living):
        folder.mkdir()
        (folder / "config.yaml").write_text("half")
    with RunFolder(living).locked():
        RunFolder(tmp_path / "run").create(tiny(), lambda folder: None)
    assert not dead.exists()
    assert (living / "config.yaml").read_text() == "half"
    assert RunFolder(tmp_path / "run").read_config() == tiny()


def test_a_disk_that_is_full_is_said_and_leaves_no_half_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000))
    with pytest.raises(UserError, match=r"checkpoints/6: cannot write: the disk is full"):
        train_run(tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_while_orbax_writes_is_said_and_leaves_no_half_checkpoint(
    tmp_path: Path,
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small disk cannot be mounted: it takes Linux and the right to mount")
    try:
        # random, as Orbax compresses; the array fits, what Orbax writes beside it does not
        array = np.random.default_rng(0).random(250 * 1024 // 8)
        with pytest.raises(UserError, match=r"checkpoints/1: cannot write: the disk is full"):
            save(disk / "checkpoints", 1, {"x": array}, Identity("c", "t", "d"))
        assert not list((disk / "checkpoints").iterdir())
        save(disk / "checkpoints", 2, {"x": array[:100]}, Identity("c", "t", "d"))
        assert steps_saved(disk / "checkpoints") == [2]
    finally:
        # lazily: a thread of a write that failed may still be about to close its file
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("run.json", b"[1, 2]"),
        ("run.json", b'{"seconds": "many"}'),
        ("metrics.jsonl", b'{"step": 5}\nnull\n'),
        ("metrics.jsonl", b'{"step": 5}\n{"a": 1}\n'),
        ("metrics.jsonl", b'{"step": 5}\n\xff\n'),
        ("evaluations/markov-test-24.json", b"[]"),
        ("checkpoints/24/checksums.json", b"null"),
    ],
)
def test_a_damaged_file_of_a_run_is_said(
    finished: Path, tmp_path: Path, file: str, content: bytes
) -> None:
    run = copy_of(finished, tmp_path)
    (run / file).write_bytes(content)
    with pytest.raises(UserError) as error:
        train_run(tiny(), run)
    assert str((run / file).parent) in str(error.value)
    assert "remove" in str(error.value)
    assert "line 2" in str(error.value) or "metrics" not in file


def test_a_run_is_evaluated_without_its_run_json(finished: Path, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    (run / "run.json").unlink()
    assert evaluate_run(run, limit=4_000).results["nll"] == pytest.approx(
        json.loads((finished / "evaluations" / "markov-test-24.json").read_text())["nll"]
    )


@pytest.mark.long
def test_a_context_in_bytes_is_the_same_when_a_run_is_evaluated_again(tmp_path: Path) -> None:
    config = tiny(context={"bytes": 90}, budget={"steps": 1})
    outcome = train_run(config, tmp_path / "run")
    context = outcome.summary["context_tokens"]
    assert evaluate_run(tmp_path / "run", limit=500).about["context"] == context


@pytest.mark.parametrize("size", [None, 0, 100, -8])
def test_lost_target_counts_are_said_and_restored_as_advised(
    finished: Path, tmp_path: Path, size: int | None
) -> None:
    run = copy_of(finished, tmp_path)
    path = run / "tokenizer" / "target_counts.npy"
    whole = path.read_bytes()
    path.unlink()
    if size is not None:
        path.write_bytes(whole[:size])
    with pytest.raises(UserError, match=r"target_counts\.npy: cannot be read") as error:
        evaluate_run(run)
    assert f"calibtrain train {run}/config.yaml --run {run}" in str(error.value)
    assert train_run(load_config(run / "config.yaml"), run).status == "done"
    assert path.read_bytes() == whole


def test_evaluating_without_a_checkpoint_is_said(finished: Path, tmp_path: Path) -> None:
    run = copy_of(finished, tmp_path)
    shutil.rmtree(run / "checkpoints")
    assert "no checkpoint" in refused("evaluate", run)
    with pytest.raises(UserError, match="split"):
        evaluate_run(finished, split="trian")
