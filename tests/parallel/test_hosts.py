"""Several processes as one run, for real: on loopback, with gloo collectives."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import assert_same, tiny

from calibtrain.config import to_yaml
from calibtrain.errors import UserError
from calibtrain.evaluation import train_run
from calibtrain.parallel import hosts
from calibtrain.training.checkpoint import steps_saved


def start(count: int, config: Path, run: Path) -> list[subprocess.Popen[str]]:
    """The processes of one run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-m", "calibtrain", "train", config, "--run", run, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "CALIBTRAIN_COORDINATOR": f"localhost:{port}",
                "CALIBTRAIN_PROCESSES": str(count),
                "CALIBTRAIN_PROCESS": str(number),
            },
        )
        for number in range(count)
    ]


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Wait for all; what each said on standard output."""
    said = [process.communicate(timeout=240) for process in processes]
    for process, (_, errors) in zip(processes, said, strict=True):
        assert process.returncode == 0, errors
    return [output for output, _ in said]


def wait_for(run: Path, step: int) -> None:
    """Until a checkpoint is whole."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if step in steps_saved(run / "checkpoints"):
            return
        time.sleep(0.05)
    raise AssertionError(f"no checkpoint of step {step}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The configuration's file, and a run of it by two processes."""
    folder = tmp_path_factory.mktemp("hosts")
    config = folder / "config.yaml"
    config.write_text(to_yaml(tiny(batch={"rows": 8}, budget={"steps": 60})))
    said = finish(start(2, config, folder / "run"))
    assert '"status": "done"' in said[0]
    assert said[1] == ""  # one speaks for all
    return config, folder / "run"


@pytest.mark.xdist_group("hosts")
def test_one_killed_the_run_started_again_ends_the_same(
    undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    config, whole = undisturbed
    run = tmp_path / "run"
    processes = start(2, config, run)
    wait_for(run, 12)
    processes[1].kill()
    processes[0].kill()  # as an engine does with the rest; alone it would give up by itself
    for process in processes:
        process.communicate()
    assert steps_saved(run / "checkpoints")[-1] < 60
    finish(start(2, config, run))
    assert_same(run, whole)


@pytest.mark.xdist_group("hosts")
def test_sigterm_to_one_stops_all_at_the_same_step(
    undisturbed: tuple[Path, Path], tmp_path: Path
) -> None:
    config, whole = undisturbed
    run = tmp_path / "run"
    processes = start(2, config, run)
    wait_for(run, 12)
    processes[1].send_signal(signal.SIGTERM)
    said = finish(processes)
    assert '"status": "stopped"' in said[0]
    assert steps_saved(run / "checkpoints")[-1] < 60
    finish(start(2, config, run))
    assert_same(run, whole)


@pytest.mark.xdist_group("hosts")
def test_four_processes(undisturbed: tuple[Path, Path], tmp_path: Path) -> None:
    from test_mesh import assert_close

    config, whole = undisturbed
    finish(start(4, config, tmp_path / "run"))
    assert_close(whole, tmp_path / "run")


def test_what_does_not_fit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hosts.ADDRESS, "localhost:1")
    with pytest.raises(UserError, match="CALIBTRAIN_PROCESSES: is required"):
        hosts.start()
    monkeypatch.setenv(hosts.COUNT, "2")
    monkeypatch.setenv(hosts.NUMBER, "2")
    with pytest.raises(UserError, match=r"CALIBTRAIN_PROCESS=2: must be in 0\.\.1"):
        hosts.start()


@pytest.mark.xdist_group("hosts")
def test_replicas_are_divided_over_processes(tmp_path: Path) -> None:
    """A seed a process, saved by both, is what the seed is by itself; and goes on on one host."""
    from test_mesh import assert_close

    config, run = tmp_path / "config.yaml", tmp_path / "run"
    settings = tiny(batch={"rows": 8}, train={"replicas": 2})
    config.write_text(to_yaml(settings))
    processes = start(2, config, run)
    wait_for(run / "seed=1", 6)
    processes[0].send_signal(signal.SIGTERM)
    said = finish(processes)
    assert '"status": "stopped"' in said[0]
    assert said[1] == ""
    finish(start(2, config, run))
    for seed in (0, 1):
        train_run(tiny(batch={"rows": 8}, seed=seed), tmp_path / str(seed))
        assert_close(run / f"seed={seed}", tmp_path / str(seed))
