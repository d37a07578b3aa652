"""A real Slurm of one node: cancelled, preempted and array jobs end as local runs do."""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TINY, assert_same
from typer.testing import CliRunner

from calibtrain.ablation import run_study
from calibtrain.cli.launching import launch_app
from calibtrain.config import StudyConfig, load_config, load_study, to_yaml, validate
from calibtrain.errors import UserError
from calibtrain.evaluation import train_run
from calibtrain.launch import slurm
from calibtrain.launch.assignment import resolve
from calibtrain.launch.requeue import exit_handler
from calibtrain.launch.slurm import Resources, SlurmTask, launch, options, plan
from calibtrain.runs.checkpoint import steps_saved

sys.path.insert(0, str(Path(__file__).parent))
import slurm_cluster

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent.parent
SMALL = Resources(cpus=1, time="10", partition="main")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    pytest.importorskip("submitit")
    try:
        with slurm_cluster.running():
            yield
    except slurm_cluster.Unavailable as error:
        pytest.skip(str(error))


def wait(condition: Any, seconds: float, folder: Path) -> None:
    """Wait for a condition; tell what the jobs said if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            logs = [f"{f.name}:\n{f.read_text()[-2000:]}" for f in folder.glob("*.slurm/*log.out")]
            pytest.fail("\n".join([slurm_cluster.squeue(), *logs]))
        time.sleep(0.1)


def wait_for_jobs(folder: Path, seconds: float = 120) -> None:
    wait(lambda: not slurm_cluster.squeue(), seconds, folder)


def summary(run: Path) -> dict[str, Any]:
    path = run / "run.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def logs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("*.slurm/*log.out")))


def write_study(path: Path) -> Path:
    base = {**TINY, "budget": {"bytes": 3_000}, "context": {"bytes": 96}}
    base["evaluation"] = {**TINY["evaluation"], "events": ["token"]}
    tree = {"title": "Two", "base": base, "grid": {"tokenizer.vocab_size": [285, 300]}}
    path.write_text(to_yaml(validate(StudyConfig, tree)))
    return path


def test_a_run_cancelled_relaunched_and_preempted_equals_an_undisturbed_one(
    cluster: None, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    steps = {"budget": {"steps": 2000}, "evaluation": {**TINY["evaluation"], "every": 1000}}
    tree = {**TINY, **steps, "log_every": 100, "checkpoints": {"every": 1000, "keep": 9}}
    config.write_text(json.dumps(tree))
    run = tmp_path / "run"
    assignment = resolve(config, [], str(run))

    def trained(since: int) -> bool:
        path = run / "metrics.jsonl"
        return path.is_file() and len(path.read_text().splitlines()) > since

    submitted = launch(assignment, SMALL)
    assert len(submitted["jobs"]) == 1
    with pytest.raises(UserError, match="still queued or running"):
        launch(assignment, SMALL)
    wait(lambda: trained(0), 120, tmp_path)
    subprocess.run(["scancel", *submitted["jobs"]], check=True)
    wait_for_jobs(tmp_path)
    first = summary(run)
    assert first["status"] == "stopped"  # saved, and not put back: it was cancelled
    assert 0 < first["step"] < 2000

    job = launch(assignment, SMALL)["jobs"][0]
    wait(lambda: trained(first["step"] // 100 + 1), 120, tmp_path)
    subprocess.run(["scancel", "--signal=TERM", job], check=True)
    wait_for_jobs(tmp_path)
    assert "goes back into the queue" in logs(tmp_path)
    assert summary(run)["status"] == "done"
    assert resolve(config, [], str(run)).runs[0].is_done
    assert launch(assignment, SMALL)["jobs"] == []

    undisturbed = tmp_path / "undisturbed"
    assert train_run(load_config(config), undisturbed).status == "done"
    assert (run / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
    for path in (undisturbed / "evaluations").glob("*.json"):
        assert (run / "evaluations" / path.name).read_bytes() == path.read_bytes()


def test_an_ablation_gives_the_results_of_ablate(cluster: None, tmp_path: Path) -> None:
    config = write_study(tmp_path / "two.yaml")
    folder = tmp_path / "study"
    with pytest.raises(UserError, match=r"Slurm refused the job: .*partition"):
        launch(resolve(config, [], str(folder)), Resources(partition="nowhere"))
    submitted = launch(resolve(config, [], str(folder)), SMALL)
    arms = ["vocab_size=285", "vocab_size=300"]
    array = submitted["jobs"][0].partition("_")[0]
    assert submitted["jobs"][:2] == [f"{array}_0", f"{array}_1"]
    assert len(submitted["jobs"]) == 3
    wait_for_jobs(tmp_path)
    result = json.loads((folder / "ablation.json").read_text())
    assert [(arm["name"], arm["status"]) for arm in result["arms"]] == [
        (name, "done") for name in arms
    ]
    assert (folder / "report.html").is_file()
    local = run_study(load_study(config), tmp_path / "local", jobs=2)
    for mine, theirs in zip(result["arms"], local["arms"], strict=True):
        assert mine["evaluations"] == theirs["evaluations"]
        assert mine["settings"] == theirs["settings"]
    # launched again, nothing is trained again
    shutil.rmtree(folder / arms[1])
    work, skipped = plan(resolve(config, [], str(folder)))
    assert skipped == [arms[0]]
    assert len(work["train"]) == 1


def processes_of_task(rank: int) -> list[int]:
    """The processes of a Slurm task: what watches the run, and the run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes()
            if f"SLURM_PROCID={rank}".encode() in variables and b"python" in command:
                found.append(int(entry.name))
    return sorted(found)


def trained_by_two(config: Path, run: Path) -> None:
    """Two processes that nobody disturbs."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    variables = {"CALIBTRAIN_COORDINATOR": address, "CALIBTRAIN_PROCESSES": "2"}
    command = [sys.executable, "-m", "calibtrain", "train", config, "--run", run, "--json"]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **variables, "CALIBTRAIN_PROCESS": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(2)
    ]
    assert [process.wait(600) for process in processes] == [0, 0]


def test_a_job_whose_task_is_killed_is_put_back_and_ends_as_an_undisturbed_one(
    cluster: None, tmp_path: Path
) -> None:
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    steps = {"budget": {"steps": 300}, "evaluation": {**TINY["evaluation"], "every": 300}}
    rows = {"batch": {"rows": 8}, "checkpoints": {"every": 30, "keep": 3}, "log_every": 100}
    config.write_text(json.dumps({**TINY, **steps, **rows}))
    two = dataclasses.replace(SMALL, extra=(("ntasks-per-node", "2"),))
    launch(resolve(config, [], str(run)), two)

    def saved(step: int) -> bool:
        return max(steps_saved(run / "checkpoints"), default=0) >= step

    wait(lambda: saved(30), 240, tmp_path)
    os.kill(processes_of_task(1)[-1], signal.SIGKILL)  # the run on one of two nodes
    wait(lambda: logs(tmp_path).count("goes back into the queue") == 1, 200, tmp_path)
    at = max(steps_saved(run / "checkpoints"))
    wait(lambda: saved(at + 1), 240, tmp_path)
    for process in processes_of_task(1):  # all of a node
        os.kill(process, signal.SIGKILL)
    wait(lambda: logs(tmp_path).count("goes back into the queue") == 2, 200, tmp_path)
    wait_for_jobs(tmp_path, 400)
    assert summary(run)["status"] == "done"
    trained_by_two(config, tmp_path / "undisturbed")
    assert_same(run, tmp_path / "undisturbed")


@pytest.mark.parametrize(
    ("variables", "state", "status", "requeued"),
    [
        ({}, "RUNNING", 143, "requeue 7"),
        ({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "RUNNING", 143, "requeue 7_3"),
        ({}, "COMPLETING", 143, None),  # cancelled, or Slurm put it back itself
        ({"SLURM_PROCID": "1"}, "RUNNING", 143, None),  # the first node does it
        ({"SLURM_RESTART_COUNT": "200"}, "RUNNING", 143, None),
        ({"SLURM_NTASKS": "2"}, "RUNNING", 134, "requeue 7"),  # it lost the other node
        ({"SLURM_NTASKS": "2"}, "RUNNING", 139, "requeue 7"),
        ({"SLURM_NTASKS": "1"}, "RUNNING", 137, None),  # alone: out of memory
        ({"SLURM_NTASKS": "2"}, "RUNNING", 2, None),  # a mistake
        ({"SLURM_NTASKS": "2"}, "RUNNING", 1, None),
    ],
)
def test_a_stopped_job_puts_itself_back_once_and_by_its_own_number(
    variables: dict[str, str],
    state: str,
    status: int,
    requeued: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, script in {"squeue": f"echo {state}", "scontrol": 'echo "$@" > said'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name, value in {"SLURM_JOB_ID": "7", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "watch", lambda arguments, environment: status)
    with contextlib.suppress(SystemExit, RuntimeError):
        SlurmTask(("train",), ())()
    said = (tmp_path / "said").read_text().strip() if (tmp_path / "said").exists() else None
    assert said == requeued


@pytest.mark.parametrize(
    ("status", "tasks", "requeued"),
    [(137, 2, "requeue 7"), (143, 1, "requeue 7"), (137, 1, None), (2, 2, None), (0, 2, None)],
)
def test_a_batch_script_puts_its_job_back_by_the_status_of_its_tasks(
    status: int, tasks: int, requeued: str | None, tmp_path: Path
) -> None:
    for name, script in {"squeue": "echo RUNNING", "scontrol": 'echo "$@" > said'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    script = "\n".join([*exit_handler(), f"(exit {status})"])
    variables = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": str(tasks)}
    path = f"{tmp_path}:{os.environ['PATH']}"
    ended = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, **variables, "PATH": path, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
    )
    assert ended.returncode == status
    said = (tmp_path / "said").read_text().strip() if (tmp_path / "said").exists() else None
    assert said == requeued


def test_options_of_srun_reach_it(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(TINY))
    words = ["slurm", str(config), "--run", str(tmp_path / "run"), "--dry-run", "--json"]
    done = CliRunner().invoke(launch_app, [*words, "--srun", "container-image=/shared/i.sqsh"])
    assert json.loads(done.stdout)["srun"] == [
        "--kill-on-bad-exit=1",
        "--container-image=/shared/i.sqsh",
    ]
    refused = CliRunner().invoke(launch_app, [*words, "--srun", "overlap"])
    assert "--srun: 'overlap': write it as option=value" in str(refused.exception)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("2:30:00", 150), ("1-12", 2160), ("1-0:30", 1470), ("0:10", 1)],
)
def test_times_are_read_as_slurm_reads_them(text: str, minutes: int) -> None:
    assert options(Resources(time=text))["time"] == str(minutes)


@pytest.mark.parametrize("text", ["soon", "1h", "", "0", "1:2:3:4", "-5"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="--time"):
        options(Resources(time=text))


def test_options_reach_sbatch_under_their_names() -> None:
    asked = options(
        Resources("gpu", "60", 2, 4, 8, "16G", extra=(("constraint", "a100"), ("time", "30")))
    )
    assert asked == {
        "partition": "gpu",
        "time": "30",
        "nodes": "2",
        "ntasks-per-node": "1",
        "gpus-per-node": "4",
        "cpus-per-task": "8",
        "mem": "16G",
        "signal": "TERM@120",
        "requeue": True,
        "constraint": "a100",
    }


def test_without_slurm_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(json.dumps(TINY))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sbatch and srun are not here"):
        launch(resolve(config, [], str(tmp_path / "run")), Resources())
    assert list(tmp_path.iterdir()) == [config]


@pytest.mark.parametrize("content", ["{", "[" * 100_000, "3", "[3]", "null"])
def test_a_damaged_record_of_jobs_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "jobs.json").write_text(content)
    with pytest.raises(
        UserError, match=r"jobs\.json: cannot be read .*squeue.*remove it"
    ) as caught:
        slurm._refuse_twice(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_planned_arms_are_configured_as_by_ablate(tmp_path: Path, cache: Path) -> None:
    from calibtrain.ablation import apply_controls

    config = write_study(tmp_path / "two.yaml")
    assignment = resolve(config, ["grid.seed=[0, 1]"], str(tmp_path / "study"))
    study = load_study(config, ["grid.seed=[0, 1]"])
    arms, _ = apply_controls(study, cache)
    assert [(run.name, run.config) for run in assignment.runs] == [
        (arm.name, arm.config) for arm in arms
    ]
    again = tmp_path / "again.yaml"  # as the last job reads it
    again.write_text(to_yaml(assignment.study))
    repeated, _ = apply_controls(load_study(again), cache)
    assert [arm.config for arm in repeated] == [arm.config for arm in arms]
    work, skipped = plan(assignment)
    assert skipped == []
    assert [task.arguments[3] for task in work["train"]] == [run.folder for run in assignment.runs]
    assert work["gather"][0].arguments[0] == "ablate"
    assert np.unique([run.folder for run in assignment.runs]).size == 4
