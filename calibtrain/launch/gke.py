"""Cloud TPUs under GKE: one JobSet per run, applied by kubectl; and the XPK commands for the same.

An ablation becomes one JobSet per arm: each arm waits, runs, restarts and fails by itself, on as
many slices as the cluster has free.
"""

import base64
import shlex
import shutil
import subprocess

from calibtrain.config import resolved_yaml
from calibtrain.errors import UserError
from calibtrain.launch.assignment import Assignment, LaunchedRun
from calibtrain.launch.jobset import (
    CACHE_PATH,
    SLICES_WAIT,
    ClusterOptions,
    check_name,
    job_name,
    manifest,
    start_command,
    to_documents,
)
from calibtrain.parallel.meeting import WAIT
from calibtrain.parallel.tpu import Slice


def check_folder(folder: str) -> str:
    """Returns the folder, if every host can reach it.

    Raises:
        UserError: if it is not in a bucket.
    """
    bucket, _, path = folder.removeprefix("gs://").strip("/").partition("/")
    if not folder.startswith("gs://") or not bucket or not path:
        raise UserError(
            f"--run: {folder!r} is not a place that all hosts share; write gs://BUCKET/PATH"
        )
    return folder.rstrip("/")


def check_slices(tpu: Slice, slices: int) -> None:
    """Raises a UserError for slices that GKE cannot join, which are those of a single host."""
    if slices > 1 and tpu.hosts == 1:
        raise UserError(
            f"--slices: {slices} slices of {tpu.name} cannot be joined: GKE joins slices of two "
            "hosts or more; choose a larger --tpu"
        )


def names(assignment: Assignment, name: str | None) -> dict[str, LaunchedRun]:
    """Returns the runs by the name of their JobSet.

    Raises:
        UserError: for a name that Kubernetes does not allow.
    """
    stem = check_name(name) if name else assignment.folder.rpartition("/")[2]
    if assignment.study is None:
        return {name or job_name(stem): assignment.runs[0]}
    return {job_name(stem, run.name): run for run in assignment.runs}


def manifests(
    assignment: Assignment, tpu: Slice, options: ClusterOptions, name: str | None = None
) -> str:
    """Returns the JobSets of an assignment as one YAML stream."""
    return to_documents(
        [
            manifest(job, run.config, run.folder, tpu, options)
            for job, run in names(assignment, name).items()
        ]
    )


def apply(documents: str) -> str:
    """Applies manifests to the cluster that kubectl is set up for; returns kubectl's output.

    Raises:
        UserError: without kubectl, or where it fails; the message quotes it.
    """
    if shutil.which("kubectl") is None:
        raise UserError(
            "kubectl is not on the PATH; install it and connect it to the cluster, or print the "
            "manifest with --dry-run"
        )
    done = subprocess.run(
        ["kubectl", "apply", "-f", "-"],
        input=documents,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        complaint = " ".join((done.stderr or done.stdout).split())
        raise UserError(f"kubectl apply failed: {complaint or f'status {done.returncode}'}")
    return done.stdout


def xpk_commands(
    assignment: Assignment, tpu: Slice, options: ClusterOptions, name: str | None = None
) -> list[str]:
    """Returns the XPK commands that start the same runs; cluster, project and zone are left out."""
    commands = []
    for job, run in names(assignment, name).items():
        encoded = base64.b64encode(resolved_yaml(run.config).encode()).decode()
        start = start_command(run.folder, f"echo {encoded} | base64 -d")
        variables = f"CALIBTRAIN_CACHE={CACHE_PATH} JAX_PLATFORMS=tpu,cpu"
        if options.slices > 1:
            variables += f" {WAIT}={SLICES_WAIT}"
        arguments = {
            "cluster": "CLUSTER",
            "project": "PROJECT",
            "zone": "ZONE",
            "workload": job,
            "tpu-type": tpu.xpk,
            "num-slices": str(options.slices),
            "docker-image": options.image,
            "max-restarts": str(options.max_restarts),
            "restart-on-exit-codes": "1",  # XPK adds 42 and 127 to 255; 2 is a mistake
            "termination-grace-period-seconds": str(options.grace),
            "command": f"export {variables}; {start}",
        }
        parts = [f"--{key}={shlex.quote(value)}" for key, value in arguments.items()]
        commands.append(shlex.join(["xpk", "workload", "create"]) + " " + " ".join(parts))
    return commands
