"""Slurm, through submitit: a run is a job, an ablation is an array with one element per arm.

Beside the folder DIR of a run or study, `DIR.slurm/` holds the resolved configuration, submitit's
files and the logs. A job that is preempted, reaches its time limit or gets SIGTERM saves and
requeues itself; when it starts again, it goes on from there.
"""

import dataclasses
import json
import math
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from calibtrain.config import resolved_yaml
from calibtrain.errors import UserError
from calibtrain.launch.assignment import Assignment, LaunchedRun
from calibtrain.launch.requeue import CRASHED, exit_handler, printed, requeue, several_tasks
from calibtrain.launch.worker import STOPPED, ablate_command, train_command, watch
from calibtrain.runs.starts import forget_starts
from calibtrain.storage.disk import cache_directory, disk_errors, write_whole
from calibtrain.storage.json_text import parse_json


@dataclasses.dataclass(frozen=True)
class Resources:
    """The resources that a job asks Slurm for; None means the cluster's default.

    Attributes:
        time: "90", "2:30:00", "1-12:00:00": minutes, or Slurm's other forms.
        nodes: nodes of each run; there is one task per node.
        gpus_per_node: GPUs per node, all for its task.
        cpus: CPUs per task.
        mem: memory per node, for example "16G".
        grace: seconds before the time limit at which the job is told to save.
        parallel: how many arms may run at once.
        extra: further options of sbatch.
        srun: options of the srun that starts a job's tasks, such as those of a container.
    """

    partition: str | None = None
    time: str | None = None
    nodes: int = 1
    gpus_per_node: int | None = None
    cpus: int | None = None
    mem: str | None = None
    account: str | None = None
    qos: str | None = None
    grace: int = 120
    parallel: int | None = None
    extra: tuple[tuple[str, str], ...] = ()
    srun: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class SlurmTask:
    """The work of a job; submitit pickles it and calls it once on each node.

    Attributes:
        arguments: arguments of calibtrain.
        environment: variables to set.
    """

    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]

    def __call__(self) -> None:
        """Runs calibtrain; requeues the job if it was stopped, lost another task, or crashed as one
        of several tasks does whose node or network fails.

        Raises:
            RuntimeError: when calibtrain failed, so that Slurm sees a failed job.
        """
        status = watch(self.arguments, dict(self.environment))
        if status == 0:
            return
        if status != STOPPED and not (status in CRASHED and several_tasks()):
            raise RuntimeError(f"calibtrain {self.arguments[0]}: exit status {status}; see above")
        if os.environ.get("SLURM_PROCID", "0") != "0":
            return  # the first node decides; an error here would end it while it saves
        requeue("saved" if status == STOPPED else f"ended with status {status}")
        sys.exit(STOPPED)


def launch(
    assignment: Assignment, resources: Resources, *, cache: Path | None = None
) -> dict[str, Any]:
    """Submits the runs that are not done.

    An ablation ends with one more job, which runs after the array even if some arms failed:
    `calibtrain ablate` tries failed arms once more, gathers the results and writes the report.

    Returns:
        "jobs" (Slurm's job numbers), "skipped" (names of finished arms) and "logs" (the folder of
        the logs).

    Raises:
        UserError: without submitit or Slurm, for options that Slurm refuses, or while jobs of an
            earlier launch still exist.
    """
    submitit = _submitit()
    folder = _side_folder(assignment)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    _refuse_twice(folder)
    work, skipped = plan(assignment, cache)
    for run in assignment.runs:
        forget_starts(Path(run.folder))
    _write_configurations(assignment)
    jobs: list[str] = []
    name = Path(assignment.folder).name
    if work["train"]:
        executor = _executor(submitit, folder, name, resources)
        jobs = _submit(executor, work["train"])
        write_whole(folder / "jobs.json", json.dumps(jobs) + "\n")
    if work["gather"]:
        after = {"dependency": f"afterany:{jobs[0].partition('_')[0]}"} if jobs else {}
        one = dataclasses.replace(resources, nodes=1)
        executor = _executor(submitit, folder, f"{name}-report", one, **after)
        jobs += _submit(executor, work["gather"])
        write_whole(folder / "jobs.json", json.dumps(jobs) + "\n")
    return {"jobs": jobs, "skipped": skipped, "logs": str(folder)}


def plan(
    assignment: Assignment, cache: Path | None = None
) -> tuple[dict[str, list[SlurmTask]], list[str]]:
    """Returns the tasks of an assignment, under "train" and "gather", and the finished runs."""
    folder = _side_folder(assignment)
    environment = (("CALIBTRAIN_CACHE", str((cache or cache_directory()).absolute())),)

    def task(arguments: list[str]) -> SlurmTask:
        return SlurmTask(tuple(arguments), environment)

    work: dict[str, list[SlurmTask]] = {"train": [], "gather": []}
    skipped = []
    for run in assignment.runs:
        if run.is_done:
            skipped.append(run.name)
            continue
        path = str(_configuration(assignment, run))
        work["train"].append(task(train_command(path, str(Path(run.folder).absolute()))))
    if assignment.study is not None:
        study = str(folder / "study.yaml")
        work["gather"].append(task(ablate_command(study, str(Path(assignment.folder).absolute()))))
    return work, skipped


def _configuration(assignment: Assignment, run: LaunchedRun) -> Path:
    """Returns the configuration file that a run's job reads; for an arm, the same as `ablate`."""
    if assignment.study is None:
        return _side_folder(assignment) / "config.yaml"
    return Path(assignment.folder).absolute() / "configs" / f"{run.name}.yaml"


def _write_configurations(assignment: Assignment) -> None:
    """Writes the resolved configurations of the jobs, so that a later edit does not change them."""
    for run in assignment.runs:
        path = _configuration(assignment, run)
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, resolved_yaml(run.config))
    if assignment.study is not None:
        write_whole(_side_folder(assignment) / "study.yaml", resolved_yaml(assignment.study))


def options(resources: Resources) -> dict[str, str | bool]:
    """Returns the options of sbatch that a job is submitted with, by their long names.

    Raises:
        UserError: for a time in none of Slurm's forms.
    """
    minutes = None if resources.time is None else _minutes(resources.time)
    asked = {
        "partition": resources.partition,
        "time": minutes,
        "nodes": resources.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": resources.gpus_per_node,
        "cpus-per-task": resources.cpus,
        "mem": resources.mem,
        "account": resources.account,
        "qos": resources.qos,
        "signal": f"TERM@{resources.grace}",
    }
    named = {key: str(value) for key, value in asked.items() if value is not None}
    return {**named, "requeue": True, **dict(resources.extra)}


def srun_arguments(resources: Resources) -> list[str]:
    """Returns the options of the srun that starts a job's tasks."""
    return ["--kill-on-bad-exit=1", *(f"--{key}={value}" for key, value in resources.srun)]


def _minutes(text: str) -> int:
    """Returns a time in one of Slurm's forms as minutes, rounded up."""
    form = r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?"
    match = re.fullmatch(form, text.strip())
    if match is None:
        raise UserError(
            f"--time: {text!r} is not a time of Slurm's; write minutes, hours:minutes:seconds, or "
            "days-hours:minutes:seconds"
        )
    days, *parts = match.groups()
    numbers = [int(part) for part in parts if part is not None]
    if days is not None:  # days-hours[:minutes[:seconds]]
        hours, minutes, seconds = [*numbers, 0, 0][:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:  # minutes[:seconds]
        hours, (minutes, seconds) = 0, [*numbers, 0][:2]
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    if total == 0:
        raise UserError(f"--time: {text!r} is not a positive time; leave it out for the default")
    return math.ceil(total / 60)


def _side_folder(assignment: Assignment) -> Path:
    if "://" in assignment.folder:
        raise UserError(
            f"--run: {assignment.folder} is not a folder; name one on a disk that all nodes share"
        )
    return Path(f"{assignment.folder}.slurm").absolute()


def _submitit() -> Any:
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UserError(
            "Slurm's sbatch and srun are not here; run this on a login node of the cluster, or "
            "look at what it would submit with --dry-run"
        )
    try:
        import submitit
    except ImportError:
        raise UserError(
            "the package submitit is missing; install calibtrain with the extra slurm: "
            "pip install 'calibtrain[slurm]'"
        ) from None
    return submitit


def _executor(submitit: Any, folder: Path, name: str, resources: Resources, **more: str) -> Any:
    """Returns an executor with our options in place of submitit's defaults."""
    executor = submitit.SlurmExecutor(folder=folder)
    parameters: dict[str, Any] = {
        "job_name": name,
        "time": None,
        "wckey": None,
        "stderr_to_stdout": True,
        "setup": exit_handler(),
        "srun_args": srun_arguments(resources),
        "additional_parameters": {**options(resources), **more},
    }
    if resources.parallel:
        parameters["array_parallelism"] = resources.parallel
    executor.update_parameters(**parameters)
    return executor


def _submit(executor: Any, tasks: list[SlurmTask]) -> list[str]:
    try:
        with executor.batch():
            submitted = [executor.submit(task) for task in tasks]
        return [str(job.job_id) for job in submitted]
    except Exception as error:
        if type(error).__name__ not in ("FailedJobError", "FailedSubmissionError"):
            raise
        lines = [line.strip() for line in str(error).splitlines() if "error" in line.lower()]
        raise UserError(f"Slurm refused the job: {(lines or [str(error)])[-1]}") from None


def _refuse_twice(folder: Path) -> None:
    """Refuses to submit while jobs of an earlier launch exist: two jobs must not write one run."""
    record = folder / "jobs.json"
    if not record.is_file():
        return
    try:
        earlier = parse_json(record.read_text(encoding="utf-8"))
        ids = sorted({job.partition("_")[0] for job in earlier})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{record}: cannot be read ({error}); see with squeue that its jobs have ended, and "
            "remove it"
        ) from None
    there = [job for job in ids if printed("squeue", "--noheader", f"--jobs={job}").strip()]
    if there:
        raise UserError(
            f"{folder}: its jobs are still queued or running: {', '.join(there)}; wait, or end "
            f"them first: scancel {' '.join(there)}"
        )
