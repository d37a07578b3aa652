"""Devices that share a run do not change it: simulated ones, on the CPU."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import call, tiny

from calibtrain.config import MeshConfig, to_yaml
from calibtrain.errors import UserError
from calibtrain.parallel.mesh import make_layout


def on_devices(count: int, config: Path, run: Path, *overrides: str) -> dict[str, Any]:
    """Train on so many devices; the summary."""
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    done = call("train", config, *overrides, "--run", run, "--json", environment=flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


BY_ORDER = {
    "eval/area_under_risk_coverage",
    "eval/area_under_roc",
    "eval/kolmogorov_smirnov_error",
    "eval/ece_mass",
    "eval/debiased_calibration_error",
}
"""Figures that jump by about a token's share where rounding turns the order of two tokens."""
BY_SEARCH = {"eval/sweep_bins", "eval/sweep_calibration_error"}
"""Figures of the number of bins that is found, which may jump as far as it likes."""


def assert_close(one: Path, other: Path) -> None:
    """Metrics that agree within rounding."""
    for mine, theirs in zip(*(read(path) for path in (one, other)), strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            if name in BY_SEARCH:
                continue
            jump = 2 / mine["eval/tokens"] if name in BY_ORDER else 1e-6
            assert value == pytest.approx(theirs[name], rel=2e-5, abs=jump), (mine["step"], name)


def read(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mesh") / "config.yaml"
    path.write_text(to_yaml(tiny(batch={"rows": 8}, evaluation={"rows": 3})))
    return path


@pytest.fixture(scope="module")
def alone(config: Path) -> tuple[Path, dict[str, Any]]:
    """The run on one device."""
    run = config.parent / "alone"
    return run, on_devices(1, config, run)


@pytest.mark.long
@pytest.mark.parametrize(
    ("devices", "overrides"),
    [
        pytest.param(2, (), id="2", marks=pytest.mark.long),
        pytest.param(4, ("mesh.fsdp=2",), id="2x2"),
        pytest.param(8, ("mesh.fsdp=8",), id="8-sharded", marks=pytest.mark.long),
        pytest.param(
            4,
            ("mesh.fsdp=4", "batch.accumulate=2"),
            id="4-accumulating",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_run_is_the_same_on_any_mesh(
    devices: int, overrides: tuple[str, ...], config: Path, alone: Any, tmp_path: Path
) -> None:
    found = on_devices(devices, config, tmp_path / "run", *overrides)
    assert_close(alone[0], tmp_path / "run")
    memory, whole = found["memory"], alone[1]["memory"]
    if "mesh.fsdp=8" in overrides:  # almost all of it is in arrays that 8 divides
        assert memory["parameters"] < whole["parameters"] / 6
        assert memory["optimizer"] < whole["optimizer"] / 6


@pytest.mark.long
def test_a_checkpoint_of_one_mesh_is_restored_on_another(
    config: Path, alone: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    on_devices(8, config, run, "mesh.fsdp=4")
    for step in (12, 18, 24):
        checkpoint = run / "checkpoints" / str(step)
        (checkpoint / "checksums.json").unlink()  # as if killed before they were written
    for result in (run / "evaluations").glob("*-24*"):
        result.unlink()
    assert on_devices(2, config, run)["status"] == "done"
    assert_close(alone[0], run)


def test_what_cannot_be_divided_is_told() -> None:
    devices = list(range(8))
    assert make_layout(MeshConfig(fsdp=2), 16, 2, devices).row_shares == 8
    with pytest.raises(UserError, match=r"batch\.rows: 12 .* multiple of 8"):
        make_layout(MeshConfig(), 12, 1, devices)
    with pytest.raises(UserError, match=r"fsdp \(3\) does not divide the 8 devices"):
        make_layout(MeshConfig(fsdp=3), 12, 1, devices)
    with pytest.raises(UserError, match="is 4, but there are 8 devices"):
        make_layout(MeshConfig(data=2, fsdp=2), 16, 1, devices)
