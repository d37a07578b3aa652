"""A tracker that is missing is refused before training; one that fails later never stops a run."""

import importlib.metadata
import sys
import time
from pathlib import Path

import pytest
from conftest import tiny

from calibtrain.config import config_hash
from calibtrain.errors import UserError
from calibtrain.trackers import process, require_trackers
from calibtrain.trackers.process import TrackerProcess


def test_trackers_are_not_part_of_what_a_run_is() -> None:
    assert config_hash(tiny(trackers=["tensorboard", {"kind": "wandb"}])) == config_hash(tiny())


def test_a_missing_package_is_refused_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(UserError, match=r"trackers: wandb needs .*'calibtrain\[wandb\]'"):
        require_trackers([(tiny(trackers=["wandb"]), Path("run"))])


def test_a_run_in_a_bucket_needs_a_folder_for_its_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1")
    bucket = Path("gs://bucket/run")
    monkeypatch.setattr("calibtrain.trackers.listening.in_bucket", lambda path: path == bucket)
    with pytest.raises(UserError, match="name a folder for them"):
        require_trackers([(tiny(trackers=["tensorboard"]), bucket)])
    require_trackers([(tiny(trackers=[{"kind": "tensorboard", "folder": "x"}]), bucket)])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise OSError(28, 'No space left on device')", "No space left on device"),
        ("import sys; sys.stdin.readline(); sys.exit(3)", "ended"),
        ("import time; time.sleep(60)", "does not keep up"),
        ("import os; os.abort()", "ended"),
    ],
)
def test_a_tracker_that_fails_is_noted_once_and_off(
    code: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "COMMAND", [sys.executable, "-S", "-c", code])
    monkeypatch.setattr(process, "MOST_KEPT", 200_000)
    notes: list[str] = []
    tracker = TrackerProcess("wandb", notes.append)
    began = time.monotonic()
    while not notes and time.monotonic() - began < 20:
        tracker.tell({"line": {"step": 1, "text": "x" * 10_000}})
        time.sleep(0.01)
    tracker.tell({"line": {}})
    tracker.close()
    assert len(notes) == 1
    assert said in notes[0]
    assert "the run goes on without it" in notes[0]


def test_a_tracker_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, time; sys.stdin.read(); time.sleep(60)"
    monkeypatch.setattr(process, "COMMAND", [sys.executable, "-S", "-c", code])
    monkeypatch.setattr(process, "CLOSING_SECONDS", 0.3)
    notes: list[str] = []
    tracker = TrackerProcess("tensorboard", notes.append)
    tracker.tell({"line": {}})
    began = time.monotonic()
    tracker.close()
    assert time.monotonic() - began < 5
    assert "did not end" in notes[0]


def test_a_command_that_cannot_be_started_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "COMMAND", ["/nowhere/python"])
    notes: list[str] = []
    tracker = TrackerProcess("tensorboard", notes.append)
    tracker.tell({"line": {}})
    tracker.close()
    assert "could not be started" in notes[0]
