"""Putting a Slurm job back into the queue: by its first task, or by its batch script.

A task that was told to stop, or lost another one, saves what it can and asks for it itself. Where a
task was killed, with what watches it, or runs in a container without Slurm's commands, the batch
script still runs outside: its exit handler asks (`python -m calibtrain.launch.requeue`).
"""

import os
import shlex
import shutil
import subprocess
import sys

from calibtrain.launch.worker import STOPPED

MAX_REQUEUES = 200
"""Requeues after which a run counts as stuck."""
CRASHED = range(134, 140)
"""Exit statuses of a process that a signal ended (128 + SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGUSR1,
SIGSEGV): with several tasks, a sign of a lost node or network rather than of a mistake."""


def several_tasks() -> bool:
    """Returns whether this job has several tasks."""
    return int(os.environ.get("SLURM_NTASKS") or "1") > 1


def requeue(what: str = "saved") -> None:
    """Requeues this job, unless it was cancelled, Slurm has requeued it, or it is stuck.

    Args:
        what: what happened, for the log.
    """
    if shutil.which("scontrol") is None:
        print(f"{what}; Slurm's commands are not here, so the batch script asks", flush=True)
        return
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:  # an element's bare number is that of the array
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    state = printed("squeue", "--noheader", f"--jobs={job}", "--Format=State").strip()
    count = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if state != "RUNNING":
        print(f"{what}; job {job} is {state or 'gone'}, so it is not put back", flush=True)
    elif count >= MAX_REQUEUES:
        print(f"{what}; job {job} was put back {count} times already: no more", flush=True)
    else:
        print(f"{what}; job {job} goes back into the queue", flush=True)
        subprocess.run(["scontrol", "requeue", job], check=True)


def exit_handler() -> list[str]:
    """Returns lines of a batch script that put the job back where a task stopped or crashed."""
    ask = f"{shlex.quote(sys.executable)} -m calibtrain.launch.requeue"
    wanted = "|".join(str(status) for status in (*CRASHED, STOPPED))
    return [
        "calibtrain_ended() {",
        "  status=$?",
        f'  case "$status" in {wanted}) {ask} "$status" ;; esac',
        '  exit "$status"',
        "}",
        "trap calibtrain_ended EXIT",
    ]


def printed(*command: str) -> str:
    """Returns what a command prints; "" where it fails (as squeue does for old jobs)."""
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=False
    ).stdout


def main() -> None:
    """Requeues the job of this batch script: `python -m calibtrain.launch.requeue STATUS`."""
    status = int(sys.argv[1])
    if status == STOPPED or several_tasks():
        requeue(f"a task ended with status {status}")


if __name__ == "__main__":
    main()
