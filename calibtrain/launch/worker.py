"""The worker that Slurm or GKE starts on each host: it runs a calibtrain command until it ends.

`calibtrain train` answers SIGTERM by saving and ending with status 0, which looks like a finished
run. The worker distinguishes the two: it passes SIGTERM on, and ends with 143 (the status of a
process ended by SIGTERM) where the run is to be started again.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from calibtrain.errors import TransientError
from calibtrain.process.output import OutputError, prepare_streams

STOPPED = 128 + signal.SIGTERM
"""Exit status of a run that was saved and is to be started again."""


def train_command(config: str, run: str) -> list[str]:
    """Returns the arguments of calibtrain that train a run and print its summary."""
    return ["train", config, "--run", run, "--json", "--progress", "plain"]


def ablate_command(config: str, run: str) -> list[str]:
    """Returns the arguments of calibtrain that run the rest of a study and write its report."""
    return ["ablate", config, "--run", run, "--json", "--progress", "plain"]


def watch(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Runs calibtrain in a child process, and passes SIGTERM on to it.

    Args:
        arguments: arguments of calibtrain, with `--json`.
        environment: variables to set for it.

    Returns:
        0 if it is done; STOPPED if it was stopped, or lost another host, and can go on; otherwise
        its exit status.
    """
    asked = False
    child: subprocess.Popen[str] | None = None

    def stop(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True
        if child is not None:
            child.terminate()

    old = signal.signal(signal.SIGTERM, stop)
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "calibtrain", *arguments],
            stdout=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **(environment or {})},
        )
        if asked:  # SIGTERM came between the two lines above
            child.terminate()
        printed, _ = child.communicate()
    finally:
        signal.signal(signal.SIGTERM, old)
    code = child.returncode
    if code == 0:
        status = STOPPED if _was_stopped(printed, asked) else 0
        _tell(f"calibtrain {arguments[0]}: {'stopped' if status else 'done'}\n")
        return status
    _tell(printed)
    if code == TransientError.status:
        return STOPPED
    if asked and code < 0:  # SIGTERM came before the child could handle it
        return STOPPED
    return code if code > 0 else 128 - code


def _tell(text: str) -> None:
    """Prints a line for the log, if possible; the exit status says how the run ended anyway."""
    with suppress(OSError, OutputError):
        print(text, end="", flush=True)


def _was_stopped(printed: str, asked: bool) -> bool:
    """Returns whether a run ended early: by its summary, or by the signal if it prints none."""
    try:
        result = json.loads(printed)
        statuses = [arm["status"] for arm in result.get("arms", [result])]
    except (ValueError, KeyError):
        return asked
    return "stopped" in statuses


def main() -> None:
    """Trains a run on this host: `python -m calibtrain.launch.worker CONFIG RUN`."""
    prepare_streams()
    if len(sys.argv) != 3:
        sys.exit("usage: python -m calibtrain.launch.worker CONFIG RUN")
    config, run = sys.argv[1:]
    if not Path(config).is_file():
        sys.exit(f"{config}: no such file")
    sys.exit(watch(train_command(config, run)))


if __name__ == "__main__":
    main()
