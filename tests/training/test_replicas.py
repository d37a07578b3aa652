"""Seeds trained by one program are the runs that each would be by itself."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_same, call, tiny

from calibtrain.ablation.replicas import train_replicas
from calibtrain.config import Config, MeshConfig, to_yaml
from calibtrain.errors import UserError
from calibtrain.evaluation import train_run
from calibtrain.parallel.mesh import make_layout
from calibtrain.training import engine, program
from calibtrain.training.optimizer import make_optimizer
from calibtrain.training.plan import make_plans

DRIVER = Path(__file__).parent / "interrupted.py"


def replicas(count: int, **changes: Any) -> Config:
    return tiny(batch={"rows": 8}, train={"replicas": count}, **changes)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> list[Path]:
    """Two seeds, each trained by itself."""
    folder = tmp_path_factory.mktemp("alone")
    for seed in (0, 1):
        train_run(replicas(1, seed=seed), folder / str(seed))
    return [folder / "0", folder / "1"]


@pytest.mark.long
def test_on_a_cpu_they_are_the_same_to_the_bit(alone: list[Path], tmp_path: Path) -> None:
    result = train_replicas(replicas(2), tmp_path / "run")
    assert [arm["status"] for arm in result["arms"]] == ["done", "done"]
    for seed, run in enumerate(alone):
        assert_same(tmp_path / "run" / f"seed={seed}", run)
    assert result["summary"][0]["seeds"] == 2


def test_what_devices_cannot_divide_leaves_no_folder(tmp_path: Path) -> None:
    for there in (False, True):
        if there:
            (tmp_path / "run").mkdir()
        with pytest.raises(UserError, match="mesh: replica"):
            train_replicas(replicas(2, mesh={"fsdp": 64}), tmp_path / "run")
        assert {path.name for path in tmp_path.rglob("*")} <= ({"run", ".lock"} if there else set())


@pytest.mark.long
@pytest.mark.parametrize(
    "place",
    ["batch:21", "saved:3", "saved:4", "evaluation:5", "results:3"],
    ids=["step", "first saved", "one of two saved", "evaluation", "results"],
)
def test_killed_anywhere_they_end_the_same(alone: list[Path], tmp_path: Path, place: str) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(to_yaml(replicas(2, checkpoints={"keep": 1})))
    killed = subprocess.run(
        [sys.executable, DRIVER, config, run, place], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    resumed = call("train", config, "--run", run, "--json")
    assert resumed.returncode == 0, resumed.stderr
    assert [arm["status"] for arm in json.loads(resumed.stdout)["arms"]] == ["done", "done"]
    for seed, whole in enumerate(alone):
        mine, theirs = (
            (path / "metrics.jsonl").read_bytes() for path in (run / f"seed={seed}", whole)
        )
        assert mine == theirs


@pytest.mark.long
def test_one_begun_alone_goes_on_in_company(alone: list[Path], tmp_path: Path) -> None:
    """Runs with no checkpoint in common, and one that is done, still end as they would."""
    run = tmp_path / "run"
    train_run(replicas(1, seed=1), run / "seed=1")
    train_replicas(replicas(2), run)
    for seed, whole in enumerate(alone):
        assert_same(run / f"seed={seed}", whole)


@pytest.mark.long
@pytest.mark.parametrize(
    ("devices", "mesh", "changes"),
    [
        pytest.param(2, {}, {}, id="a replica a device"),
        pytest.param(4, {}, {}, id="2 replicas x 2 rows", marks=pytest.mark.long),
        pytest.param(4, {"replica": 1, "fsdp": 2}, {}, id="looped over 4", marks=pytest.mark.long),
        pytest.param(
            4,
            {"replica": 2, "fsdp": 2},
            {"batch": {"rows": 8, "accumulate": 2}},
            id="2 x fsdp 2",
            marks=pytest.mark.long,
        ),
    ],
)
def test_divided_over_devices_they_are_the_same_within_rounding(
    devices: int, mesh: dict[str, int], changes: Any, alone: list[Path], tmp_path: Path
) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1] / "parallel"))
    from test_mesh import assert_close

    config = tmp_path / "config.yaml"
    config.write_text(
        to_yaml(tiny(**{"batch": {"rows": 8}, **changes}, train={"replicas": 2}, mesh=mesh))
    )
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    done = call("train", config, "--run", tmp_path / "run", "--json", environment=flags)
    assert done.returncode == 0, done.stderr
    for seed, whole in enumerate(alone):
        assert_close(tmp_path / "run" / f"seed={seed}", whole)


def stacked_and_looped(cache: Path, count: int) -> tuple[Any, Any]:
    """Both engines for as many seeds on one device."""
    plans = make_plans([replicas(1, seed=seed) for seed in range(count)], cache)
    optimizer = make_optimizer(plans[0].config.optimizer, plans[0].budget.steps)
    layout = make_layout(MeshConfig(), 8, replicas=count)
    both = (engine.StackedEngine, engine.LoopedEngine)
    stacked, looped = (kind(plans, optimizer, layout) for kind in both)
    return stacked, looped


@pytest.mark.long
def test_stacked_on_one_device_they_are_the_same_within_rounding(cache: Path) -> None:
    stacked, looped = stacked_and_looped(cache, 3)
    found = []
    for one in (stacked, looped):
        states, batches = one.begin(), one.batches(0)
        for _ in range(6):
            states, metrics = one.advance(states, next(batches), False)
        found.append((one.figures(metrics), one.running(states), one.replica(states, 2)))
    for mine, theirs in zip(found[0][0] + found[0][1], found[1][0] + found[1][1], strict=True):
        assert mine == pytest.approx(theirs, rel=2e-5)
    for mine, theirs in zip(*(jax.tree.leaves(each[2].params) for each in found), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=2e-3, atol=2e-5)


@pytest.mark.long
def test_replicas_on_different_devices_do_not_talk(tmp_path: Path) -> None:
    """Every collective of the compiled step is among the devices of one replica."""
    program = """
import sys
from pathlib import Path
from conftest import tiny
from calibtrain.config import MeshConfig
from calibtrain.parallel.mesh import make_layout
from calibtrain.training.program import lower_step
from calibtrain.training.optimizer import make_optimizer
from calibtrain.training.plan import make_plan

plan = make_plan(tiny(batch={"rows": 8}), Path(sys.argv[1]))
layout = make_layout(MeshConfig(fsdp=2), 8, replicas=4)
optimizer = make_optimizer(plan.config.optimizer, 24)
print(lower_step(plan, plan.network, optimizer, layout, replicas=4)[0].compile().as_text())
"""
    done = subprocess.run(
        [sys.executable, "-c", program, os.environ["CALIBTRAIN_CACHE"]],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
    )
    assert done.returncode == 0, done.stderr
    by_axis = re.findall(r"replica_groups=mesh\[[^]]*\] \{([^}]*)\}", done.stdout)  # newer jax
    by_device = re.findall(r"replica_groups=\{(\{[\d,{}]*\})\}", done.stdout)
    assert by_axis or by_device
    assert not any("replica" in axes for axes in by_axis)
    for groups in by_device:
        for group in re.findall(r"\{([\d,]+)\}", groups):
            devices = {int(device) for device in group.split(",")}
            assert len({device // 2 for device in devices}) == 1  # 2r and 2r + 1 have replica r


@pytest.mark.long
def test_one_that_diverges_is_given_up_and_the_others_go_on(
    alone: list[Path], tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plans([replicas(1, seed=1)], cache)[0]
    cursed = int(plan.batches[9].tokens.sum())  # of the tenth batch that seed 1 reads
    make = program.make_train_step

    def diverging(*arguments: Any, **options: Any) -> Any:
        step = make(*arguments, **options)

        def run(state: Any, batch: Any) -> Any:
            after, metrics = step(state, batch)
            bad = (state.step == 9) & (jnp.sum(batch.tokens) == cursed)
            return after, {**metrics, "loss": jnp.where(bad, jnp.nan, metrics["loss"])}

        return run

    monkeypatch.setattr(program, "make_train_step", diverging)
    result = train_replicas(replicas(2), tmp_path / "run")
    assert [arm["status"] for arm in result["arms"]] == ["done", "failed"]
    assert "nan at step 10; the last good checkpoint is step 6" in result["arms"][1]["error"]
    assert_same(tmp_path / "run" / "seed=0", alone[0])


@pytest.mark.long
def test_an_ablation_trains_its_seeds_together(alone: list[Path], tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    base = to_yaml(replicas(2)).replace("\n", "\n  ")
    study.write_text(
        f"base:\n  {base}\ngrid: {{optimizer.learning_rate: [3e-3, 1e-3]}}\n"
        "controls: {budget: as_given, parameters: as_given}\n"
    )
    done = call("ablate", study, "--run", tmp_path / "run", "--json", "--progress", "json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [arm["settings"]["seed"] for arm in result["arms"]] == [0, 1, 0, 1]
    assert all(arm["status"] == "done" for arm in result["arms"])
    for seed, whole in enumerate(alone):
        assert_same(tmp_path / "run" / f"learning_rate=0.003,seed={seed}", whole)
    told = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    named = {event["arm"] for event in told if event["event"] == "evaluation"}
    assert named == {arm["name"] for arm in result["arms"]}


@pytest.mark.long
def test_what_cannot_be_divided_is_told(tmp_path: Path, alone: list[Path]) -> None:
    devices = list(range(8))
    layout = make_layout(MeshConfig(), 8, 1, devices, replicas=6)
    assert (layout.replica_shares, layout.row_shares) == (2, 4)
    with pytest.raises(UserError, match=r"mesh\.replica: 4 does not divide the replicas .* 6"):
        make_layout(MeshConfig(replica=4), 8, 1, devices, replicas=6)
    with pytest.raises(UserError, match=r"is the folder of a single run, and train\.replicas is 2"):
        train_replicas(replicas(2), alone[0])


def test_a_folder_in_the_way_is_not_touched(tmp_path: Path, cache: Path) -> None:
    run = tmp_path / "run"
    mine = run / "seed=1" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    with pytest.raises(UserError, match="is there already and is no run folder"):
        train_replicas(replicas(2), run)
    assert mine.read_text() == "mine"
    assert not (run / "seed=0").exists()


def test_going_back_to_a_common_step_forgets_what_came_after(tmp_path: Path, cache: Path) -> None:
    """Else one that is trained alone later would go on past metrics that were dropped."""
    from calibtrain.runs.checkpoint import steps_saved
    from calibtrain.runs.folder import RunFolder
    from calibtrain.training.run_writer import RunWriter

    config = replicas(1, seed=0)
    train_run(config, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    plan = make_plans([config], cache)[0]
    evaluator: Any = None
    RunWriter(plan, run, evaluator, lambda event: None).begin(12, {})
    assert steps_saved(run.checkpoints) == [6, 12]
    assert max(line["step"] for line in run.read_metrics()) <= 12
