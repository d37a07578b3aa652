"""Hosts of a run are killed at random, and an engine that reads exit statuses starts it again."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import assert_same, tiny

from calibtrain.config import to_yaml
from calibtrain.runs.checkpoint import steps_saved

pytestmark = pytest.mark.long
KILLS = int(os.environ.get("CALIBTRAIN_KILLS", "3"))
"""Kills of a run: few in the long tier, ten with `make test-restarts`."""
GRACE = 20
"""Seconds that the engine gives the other hosts to save."""


def hosts(count: int, config: Path, run: Path) -> list[subprocess.Popen[bytes]]:
    """The hosts of a run, each as the first process of a group of its own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    variables = {"CALIBTRAIN_COORDINATOR": f"localhost:{port}", "CALIBTRAIN_LOST": "10"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "calibtrain.launch.worker", config, run],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={
                **os.environ,
                **variables,
                "CALIBTRAIN_PROCESSES": str(count),
                "CALIBTRAIN_PROCESS": str(number),
            },
        )
        for number in range(count)
    ]


def end(processes: list[subprocess.Popen[bytes]], number: signal.Signals) -> None:
    """Send a signal to hosts, with all that runs there if it kills."""
    for process in processes:
        if process.poll() is None:
            (os.killpg if number == signal.SIGKILL else os.kill)(process.pid, number)


def latest(run: Path) -> int:
    return max(steps_saved(run / "checkpoints"), default=0)


def engine(count: int, config: Path, run: Path, kills: int, chance: random.Random) -> int:
    """Start a run until it is done, or a host ends with status 2, as a JobSet does.

    Some host is killed `kills` times: now and then while the run begins, otherwise soon after a
    new checkpoint.

    Returns:
        How many kills there were.
    """
    killed = 0
    for _ in range(kills + 20):
        processes, before = hosts(count, config, run), latest(run)
        try:
            early = chance.random() < 0.2
            waits = chance.uniform(0, 5) if early else chance.uniform(0, 0.3)
            progress = time.monotonic() if early else None
            while all(process.poll() in (None, 0) for process in processes):
                if all(process.poll() == 0 for process in processes):
                    return killed
                if progress is None and latest(run) > before:
                    progress = time.monotonic()
                if killed < kills and progress is not None and time.monotonic() - progress > waits:
                    end([chance.choice(processes)], signal.SIGKILL)
                    killed += 1
                    break
                time.sleep(0.02)
            end(processes, signal.SIGTERM)
            until = time.monotonic() + GRACE
            while any(process.poll() is None for process in processes) and time.monotonic() < until:
                time.sleep(0.02)
        finally:
            end(processes, signal.SIGKILL)
        assert 2 not in [process.wait() for process in processes]
    raise AssertionError(f"not done after {kills + 20} starts, at step {latest(run)}")


FEW = pytest.mark.skipif(KILLS < 10, reason="four hosts take minutes: make test-restarts")


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=FEW)])
def test_random_kills_change_nothing(count: int, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    rarely = {"every": 150, "bytes": 2_000, "final_bytes": 4_000, "rows": 4}
    config.write_text(
        to_yaml(
            tiny(
                batch={"rows": 8},
                budget={"steps": 450},
                log_every=50,
                evaluation=rarely,
                checkpoints={"every": 15, "keep": 3, "minutes": 0.01},
            )
        )
    )
    assert engine(count, config, tmp_path / "whole", 0, random.Random(0)) == 0
    assert engine(count, config, tmp_path / "run", KILLS, random.Random(count)) == KILLS
    assert_same(tmp_path / "run", tmp_path / "whole")
