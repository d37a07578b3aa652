"""What an engine starts on each host: a calibtrain command, watched until it ends.

`calibtrain train` answers SIGTERM by saving and ending with status 0, which an engine would take
for a finished run. The worker tells the two apart: it passes SIGTERM on and ends with 143 (what a
process that SIGTERM ended has) where the run is to be started again.
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
    """The arguments of calibtrain that train a run and print its summary."""
    return ["train", config, "--run", run, "--json", "--progress", "plain"]


def ablate_command(config: str, run: str) -> list[str]:
    """The arguments of calibtrain that run what is left of a study, gather it and report."""
    return ["ablate", config, "--run", run, "--json", "--progress", "plain"]


def watch(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> int:
    """Run calibtrain in a child process; pass SIGTERM on to it.

    Args:
        arguments: of calibtrain; they ask for `--json`.
        environment: variables to set for it.

    Returns:
        0 if it is done; STOPPED if it was stopped, or lost another host, and can go on; else its
        exit status.
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
        if asked:  # between the two lines above
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
    """Print for the log, if it takes it: how the run ended is told by the exit status."""
    with suppress(OSError, OutputError):
        print(text, end="", flush=True)


def _was_stopped(printed: str, asked: bool) -> bool:
    """Whether a run ended early. A host that prints no summary, one of many, goes by the signal."""
    try:
        result = json.loads(printed)
        statuses = [arm["status"] for arm in result.get("arms", [result])]
    except (ValueError, KeyError):
        return asked
    return "stopped" in statuses


def main() -> None:
    """`python -m calibtrain.launch.worker CONFIG RUN`: train a run on this host."""
    prepare_streams()
    if len(sys.argv) != 3:
        sys.exit("usage: python -m calibtrain.launch.worker CONFIG RUN")
    config, run = sys.argv[1:]
    if not Path(config).is_file():
        sys.exit(f"{config}: no such file")
    sys.exit(watch(train_command(config, run)))


if __name__ == "__main__":
    main()
