"""A saved run is evaluated on all devices, with the results of one: simulated ones, on the CPU."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import call, tiny

from calibtrain.config import to_yaml
from calibtrain.evaluation import train_run


def evaluated(run: Path, devices: int, *asked: str, size: int = 2000) -> dict[str, Any]:
    """What the command prints where there are so many devices."""
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    done = call("evaluate", run, "--bytes", str(size), "--json", *asked, environment=flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def assert_close(one: Any, other: Any, name: str = "") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other)
        for index, (mine, theirs) in enumerate(zip(one, other, strict=True)):
            assert_close(mine, theirs, f"{name}[{index}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=2e-5, abs=1e-6), name
    else:
        assert one == other, name


@pytest.mark.long
def test_a_saved_run_is_evaluated_alike_on_one_and_on_eight_devices(tmp_path: Path) -> None:
    config = tiny(budget={"steps": 6}, evaluation={"rows": 3}, mesh={"fsdp": 1})
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert train_run(config, tmp_path / "run").status == "done"
    alone = evaluated(tmp_path / "run", 1)
    assert alone["tokens"] > 100
    assert_close(alone, evaluated(tmp_path / "run", 8))


@pytest.mark.long
@pytest.mark.parametrize("events", ["byte", "word"])
def test_events_of_text_are_the_same_on_one_and_on_two_devices(
    events: str, finished_run: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    alone = evaluated(run, 1, "--events", events, size=600)
    assert alone["event"] == events
    assert_close(alone, evaluated(run, 2, "--events", events, size=600))


@pytest.mark.long
def test_a_temperature_is_the_same_on_one_and_on_two_devices(
    finished_run: Path, tmp_path: Path
) -> None:
    run, found = shutil.copytree(finished_run, tmp_path / "run"), []
    for devices in (1, 2):
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        asked = ("temperature", "fit", run, "--head", "global", "--bytes", "4000", "--json")
        done = call(*asked, "--replace", environment=flags)
        assert done.returncode == 0, done.stderr
        found.append({**json.loads(done.stdout), "seconds": None})
    assert_close(*found)
