"""A saved run is evaluated on all devices, with the results of one: simulated ones, on the CPU."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import call, tiny

from calibtrain.config import to_yaml
from calibtrain.evaluation import train_run


def evaluated(run: Path, devices: int) -> dict[str, Any]:
    """What the command prints where there are so many devices."""
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    done = call("evaluate", run, "--bytes", "2000", "--json", environment=flags)
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
