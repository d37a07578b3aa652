"""A thread writes checkpoints while training goes on: what is saved, when, and what goes wrong."""

import errno
import gc
import threading
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import assert_same, tiny

from calibtrain.errors import LostError, TransientError, UserError
from calibtrain.evaluation import train_run
from calibtrain.parallel import hosts
from calibtrain.runs import checkpoint
from calibtrain.runs.checkpoint import steps_saved
from calibtrain.runs.folder import RunFolder
from calibtrain.training import group, loop, saving
from calibtrain.training.saving import Saves
from calibtrain.training.stopping import Stop

PATIENCE = 60.0
"""Seconds that one thread waits for the other before the test fails."""


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Every checkpoint is written once this is set."""
    write, go_on = checkpoint.write_arrays, threading.Event()

    def waits(*arguments: Any) -> None:
        assert go_on.wait(PATIENCE)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "write_arrays", waits)
    return go_on


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], None]:
    """Lets something happen in the loop, after so many steps."""
    count = group.Group.count

    def set_up(step: int, act: Callable[[], Any]) -> None:
        def counts(runs: group.Group, metrics: Any) -> None:
            count(runs, metrics)
            if runs.step == step:
                act()

        monkeypatch.setattr(group.Group, "count", counts)

    return set_up


def raises(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def state_of(run: Path, step: int) -> dict[str, np.ndarray]:
    from orbax.checkpoint import v1 as ocp

    return ocp.load(run / "checkpoints" / str(step))


def the_thread_ends() -> None:
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path,
    finished_run: Path,
    held: threading.Event,
    after: Callable[[int, Callable[[], Any]], None],
) -> None:
    """It would wait for itself otherwise; and what is written is the state of its own step."""
    after(11, held.set)  # five steps after the checkpoint of step 6 was begun
    run = tmp_path / "run"
    assert train_run(tiny(), run).status == "done"
    assert_same(run, finished_run)
    mine, theirs = state_of(run, 6), state_of(finished_run, 6)
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


def test_time_asks_for_checkpoints_and_the_end_removes_them(
    tmp_path: Path, finished_run: Path
) -> None:
    told: list[Any] = []
    run = tmp_path / "run"
    config = tiny(checkpoints={"minutes": 1e-6})
    assert train_run(config, run, observer=told.append).status == "done"
    saved = [event["step"] for event in told if event["event"] == "saved"]
    assert {6, 12, 18, 24} < set(saved)
    assert saved == sorted(set(saved))
    assert steps_saved(run / "checkpoints") == [6, 12, 18, 24]
    assert_same(run, finished_run)


def test_a_run_that_crashes_keeps_the_checkpoint_under_way(
    tmp_path: Path, held: threading.Event, after: Callable[[int, Callable[[], Any]], None]
) -> None:
    def crash() -> None:
        held.set()
        raise RuntimeError("the eighth step fails")

    after(8, crash)
    with pytest.raises(RuntimeError, match="the eighth step fails"):
        train_run(tiny(), tmp_path / "run")
    assert steps_saved(tmp_path / "run" / "checkpoints") == [6]


def test_a_save_that_fails_ends_the_run_at_the_next_step(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after: Callable[[int, Callable[[], Any]], None],
) -> None:
    write = checkpoint.write_arrays

    def fails(path: Path, *arguments: Any) -> None:
        if path.name == "12":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, *arguments)

    monkeypatch.setattr(checkpoint, "write_arrays", fails)
    after(13, the_thread_ends)
    with pytest.raises(UserError, match="checkpoints/12: cannot write: the disk is full"):
        train_run(tiny(), tmp_path / "run")
    summary = RunFolder(tmp_path / "run").read_summary()
    assert summary is not None
    assert summary.status == "failed"
    assert summary.step in (13, 14)  # it may have failed sooner


def test_an_interrupted_save_is_never_sealed(
    tmp_path: Path,
    finished_run: Path,
    held: threading.Event,
    after: Callable[[int, Callable[[], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lock is free by then, and another process may have the run."""
    after(8, raises(KeyboardInterrupt()))
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_run(tiny(), run)
    held.set()
    the_thread_ends()
    assert steps_saved(run / "checkpoints") == []
    assert (run / "checkpoints" / "6").exists()  # all of it was written
    monkeypatch.undo()
    assert train_run(tiny(), run).status == "done"
    assert_same(run, finished_run)


@pytest.mark.long
def test_a_start_waits_for_what_an_interrupted_one_is_still_writing(
    tmp_path: Path,
    finished_run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a notebook the process lives on; both would write the checkpoint of step 6."""
    write, second, lock = checkpoint.write_arrays, threading.Event(), threading.Lock()
    began, under_way, most = 0, 0, 0

    def writes(*arguments: Any) -> None:
        nonlocal began, under_way, most
        with lock:
            began, under_way = began + 1, under_way + 1
            most, is_first = max(most, under_way), began == 1
        if is_first:
            second.wait(2.0)
        else:
            second.set()
        write(*arguments)
        with lock:
            under_way -= 1

    monkeypatch.setattr(checkpoint, "write_arrays", writes)
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        count = group.Group.count

        def counts(runs: group.Group, metrics: Any) -> None:
            count(runs, metrics)
            if runs.step == 8:
                raise KeyboardInterrupt

        patch.setattr(group.Group, "count", counts)
        with pytest.raises(KeyboardInterrupt):
            train_run(tiny(), run)
    assert train_run(tiny(), run).status == "done"
    assert most == 1
    assert_same(run, finished_run)


def test_a_start_is_refused_while_an_interrupted_save_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()
    saves = Saves(None)
    saves.begin([_Held(go_on)])
    with pytest.raises(KeyboardInterrupt), saves:
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(saving, "_PATIENCE", 0.01)
        with pytest.raises(TransientError, match="still being written by this process"):
            Saves(None)
    go_on.set()
    Saves(None)  # waits, and finds that it ended


def test_a_signal_waits_for_the_save_under_way_and_saves_the_newest_state(
    tmp_path: Path,
    finished_run: Path,
    held: threading.Event,
    after: Callable[[int, Callable[[], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop, run, told = Stop(), tmp_path / "run", []

    def ask_to_stop() -> None:
        stop.set()
        threading.Timer(0.2, held.set).start()

    after(9, ask_to_stop)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_signals", lambda: nullcontext(stop))
        outcome = train_run(tiny(), run, observer=told.append)
    assert (outcome.status, outcome.step) == ("stopped", 9)  # the step that was computed then
    assert [event["step"] for event in told if event["event"] == "saved"] == [6, 9]
    assert steps_saved(run / "checkpoints") == [6, 9]
    assert train_run(tiny(), run).status == "done"
    assert_same(run, finished_run)
    assert steps_saved(run / "checkpoints") == [6, 12, 18, 24]


class _Held:
    """A save of nothing, whose parts are counted; it is written once `go_on` is set."""

    def __init__(self, go_on: threading.Event):
        self.go_on, self.did = go_on, list[str]()

    def write(self) -> None:
        assert self.go_on.wait(PATIENCE)
        self.did.append("write")

    def seal(self) -> None:
        self.did.append("seal")

    def prune(self) -> None:
        self.did.append("prune")

    def tell(self) -> None:
        self.did.append("tell")


def test_a_save_is_not_sealed_where_a_collective_shows_that_a_host_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in `loop`: the error comes raw out of a step, while the thread writes."""
    monkeypatch.setattr(hosts, "met", True)
    go_on = threading.Event()
    held = _Held(go_on)
    saves = Saves(None)
    saves.begin([held])
    with pytest.raises(LostError), saves, hosts.losses():
        raise RuntimeError("UNAVAILABLE: Gloo all-reduce: Connection closed by peer [::1]:5")
    go_on.set()
    the_thread_ends()
    assert held.did == ["write"]


def test_a_save_that_is_done_holds_no_state() -> None:
    go_on = threading.Event()
    go_on.set()
    saves = Saves(None)
    saves.begin([held := _Held(go_on)])
    saves.wait()
    assert held.did == ["write", "seal", "prune", "tell"]
    alive = weakref.ref(held)
    del held
    gc.collect()
    assert alive() is None
