"""A killed run, started again, ends as an uninterrupted one does: bit for bit."""

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from conftest import assert_same, call, everything, tiny
from hypothesis import given
from hypothesis import strategies as st

from calibtrain.cli.terminal import describe_stop
from calibtrain.config import to_yaml
from calibtrain.data.batches import stream
from calibtrain.errors import UserError
from calibtrain.evaluation import train_run
from calibtrain.runs.checkpoint import steps_saved
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.starts import count_start, counted
from calibtrain.training import loop
from calibtrain.training.budget import due_steps, is_due
from calibtrain.training.stopping import Stop

DRIVER = Path(__file__).parent / "interrupted.py"


@pytest.fixture(scope="module")
def uninterrupted(
    tmp_path_factory: pytest.TempPathFactory, finished_run: Path
) -> tuple[Path, Path]:
    """The configuration's file, and a run of it that nothing disturbed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    config = folder / "config.yaml"
    config.write_text(to_yaml(tiny()))
    return config, Path(shutil.copytree(finished_run, folder / "run"))


@pytest.mark.long
@pytest.mark.parametrize(
    "place",
    ["batch:11", "saving:2", "saved:3", "evaluation:4", "results:2", "evaluation:9"],
)
def test_killed_anywhere_it_ends_the_same(
    uninterrupted: tuple[Path, Path], tmp_path: Path, place: str
) -> None:
    config, reference = uninterrupted
    run = tmp_path / "run"
    killed = subprocess.run(
        [sys.executable, DRIVER, config, run, place], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    resumed = call("train", config, "--run", run)
    assert resumed.returncode == 0, resumed.stderr
    assert_same(run, reference)
    assert not list((run / "checkpoints").glob("*tmp*"))


@pytest.mark.long
def test_sigterm_saves_and_exits_cleanly(uninterrupted: tuple[Path, Path], tmp_path: Path) -> None:
    config, reference = uninterrupted
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "calibtrain", "train", config, "--run", run, "--progress", "json"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if '"event": "evaluation"' in line:
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stderr.read()
    assert process.wait() == 0
    assert "stopped and saved at step" in rest
    assert json.loads((run / "run.json").read_text())["status"] == "stopped"
    assert call("train", config, "--run", run).returncode == 0
    assert_same(run, reference)


@pytest.mark.long
def test_a_stop_before_the_first_step_saves_nothing_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = Stop()
    stop.set()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_signals", lambda: nullcontext(stop))
        outcome = train_run(tiny(budget={"steps": 2}), tmp_path / "run")
    assert (outcome.status, outcome.step) == ("stopped", 0)
    assert steps_saved(tmp_path / "run" / "checkpoints") == []
    assert "nothing to save" in describe_stop(outcome.step)
    assert train_run(tiny(budget={"steps": 2}), tmp_path / "run").status == "done"


def test_a_finished_run_is_not_trained_again(uninterrupted: tuple[Path, Path]) -> None:
    config, reference = uninterrupted
    before = everything(reference)
    stamp = os.stat(reference / "checkpoints" / "24").st_mtime_ns
    again = call("train", config, "--run", reference, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["status"] == "done"
    assert os.stat(reference / "checkpoints" / "24").st_mtime_ns == stamp
    assert everything(reference)[0] == before[0]


def test_a_second_process_on_the_same_run_is_refused(
    uninterrupted: tuple[Path, Path], tmp_path: Path
) -> None:
    config, reference = uninterrupted
    with RunFolder(reference).locked():
        second = call("train", config, "--run", reference)
    assert second.returncode == 75  # it may end, or die
    assert "another process" in second.stderr
    assert str(os.getpid()) in second.stderr
    assert second.stderr.count("\n") == 1


def test_checkpoints_are_where_they_were_asked_for(uninterrupted: tuple[Path, Path]) -> None:
    assert steps_saved(uninterrupted[1] / "checkpoints") == [6, 12, 18, 24]
    lines = RunFolder(uninterrupted[1]).read_metrics()
    assert [line["step"] for line in lines if "eval/ece" in line] == [8, 16, 24]
    assert [line["step"] for line in lines if "train/loss" in line] == [5, 10, 15, 20, 24]


def lost(lines: list[str], *indices: int) -> list[str]:
    return [line for at, line in enumerate(lines) if at not in indices]


@pytest.mark.parametrize(
    ("harm", "start", "words"),
    [
        pytest.param(
            lambda lines: lines[:3],
            12,
            "line 4 should be that of the training of step 15, and is not",
            marks=pytest.mark.long,
        ),
        pytest.param(
            lambda lines: lost(lines, 6),
            18,
            "line 7 should be that of the training of step 24, and",
            marks=pytest.mark.long,
        ),
        (lambda lines: lost(lines, 4), 12, "of the evaluation of step 16, and is that of the tra"),
        pytest.param(
            lambda lines: [*lines[:5], lines[0], *lines[5:]],
            18,
            "is that of the training of step 5;",
            marks=pytest.mark.long,
        ),
        (
            lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
            12,
            "line 4 should be that of",
        ),
    ],
    ids=["end", "late", "middle", "twice", "order"],
)
def test_lost_metrics_are_noticed_and_written_again(
    uninterrupted: tuple[Path, Path], tmp_path: Path, harm: Any, start: int, words: str
) -> None:
    """Also of a run that says it is done."""
    run = tmp_path / "run"
    shutil.copytree(uninterrupted[1], run)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(harm(lines)))
    told: list[Any] = []
    assert train_run(tiny(), run, observer=told.append).status == "done"
    (note,) = [event["text"] for event in told if event["event"] == "note"]
    assert words in note
    assert f"goes back from the checkpoint of step 24 to that of step {start}" in note
    assert next(e for e in told if e["event"] == "start")["resumed_from"] == start
    assert_same(run, uninterrupted[1])


def test_a_changed_number_of_the_metrics_is_noticed_and_written_again(
    uninterrupted: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted[1], run)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if json.loads(line)["step"] == 15)
    tree = json.loads(lines[at])
    lines[at] = json.dumps({**tree, "train/loss": tree["train/loss"] + 1}) + "\n"
    (run / "metrics.jsonl").write_text("".join(lines))
    told: list[Any] = []
    assert train_run(tiny(), run, observer=told.append).status == "done"
    (note,) = [event["text"] for event in told if event["event"] == "note"]
    assert "lines are not those that training wrote; training goes back" in note
    assert next(e for e in told if e["event"] == "start")["resumed_from"] == 12
    assert_same(run, uninterrupted[1])


@pytest.mark.parametrize("kept", [None, 0, 1])
def test_metrics_lost_before_every_checkpoint_are_refused(
    uninterrupted: tuple[Path, Path], tmp_path: Path, kept: int | None
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted[1], run)
    if kept is None:
        (run / "metrics.jsonl").unlink()
    else:
        text = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
        (run / "metrics.jsonl").write_text("".join(text[1 : 1 + kept]))
    with pytest.raises(UserError, match="line 1 should be that of the training of step 5, and is"):
        train_run(tiny(), run)
    assert steps_saved(run / "checkpoints") == [6, 12, 18, 24]


def test_a_checkpoint_beyond_the_end_of_its_run_is_named(
    uninterrupted: tuple[Path, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(uninterrupted[1], run)
    shutil.copytree(run / "checkpoints" / "24", run / "checkpoints" / "30")
    with pytest.raises(UserError, match="checkpoints/30: is beyond the 24 steps of this run;"):
        train_run(tiny(), run)


@given(
    steps=st.integers(1, 400),
    times=st.integers(1, 500),
    every=st.none() | st.integers(1, 500),
    upto=st.integers(0, 400),
)
def test_the_steps_at_which_something_is_due(
    steps: int, times: int, every: int | None, upto: int
) -> None:
    upto = min(upto, steps)
    due = [step for step in range(1, upto + 1) if is_due(step, steps, times, every)]
    assert due_steps(upto, steps, times, every) == due


def test_metrics_hold_no_times(uninterrupted: tuple[Path, Path]) -> None:
    """So that they are a function of the configuration."""
    for line in RunFolder(uninterrupted[1]).read_metrics():
        assert not [key for key in line if "second" in key or "time" in key]


@pytest.mark.long
def test_a_setting_without_effect_of_a_run_that_was_begun_with_it_may_be_removed(
    tmp_path: Path, cache: Path
) -> None:
    """Which is what a user is told to do, where the run's hash counts it."""
    removed = tiny(model={"kind": "lstm", "heads": 4}, budget={"steps": 2})
    begun = tiny(model={"kind": "lstm", "heads": 2}, budget={"steps": 2})
    run = tmp_path / "run"
    train_run(begun, run, cache=cache)
    before = (run / "config.yaml").read_bytes()
    assert train_run(removed, run, cache=cache).status == "done"
    assert (run / "config.yaml").read_bytes() == before
    for other in ({"kind": "lstm", "heads": 8}, {"kind": "transformer", "heads": 4}):
        with pytest.raises(UserError, match="holds a run with another configuration: model"):
            train_run(tiny(model=other, budget={"steps": 2}), run, cache=cache)


def test_a_run_that_always_crashes_is_started_five_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, read = tmp_path / "run", stream.TrainingBatches.__getitem__

    def batch(batches: stream.TrainingBatches, step: int) -> Any:
        if step >= 2:
            raise RuntimeError("the third step fails")
        return read(batches, step)

    monkeypatch.setattr(stream.TrainingBatches, "__getitem__", batch)
    for _ in range(5):
        with pytest.raises(RuntimeError, match="the third step fails"):
            train_run(tiny(), run)
    with pytest.raises(UserError, match="5 starts in a row led to no new checkpoint") as error:
        train_run(tiny(), run)
    assert error.value.status == 2
    monkeypatch.undo()
    # what the line says lets it start again
    subprocess.run(str(error.value).rpartition("with: ")[2].split(), check=True)
    assert train_run(tiny(), run).status == "done"
    assert not (run / ".starts").exists()


def test_a_new_checkpoint_begins_the_count_of_starts_anew(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for step in (6, 12):
        (run.checkpoints / str(step)).mkdir(parents=True)
        (run.checkpoints / str(step) / "checksums.json").write_text("{}")
        for _ in range(5):
            count_start(run)
    with pytest.raises(UserError, match=r"the last is of step 12\)"):
        count_start(run)
    with pytest.raises(KeyboardInterrupt), counted([run]):  # a person's doing
        raise KeyboardInterrupt
    count_start(run)
