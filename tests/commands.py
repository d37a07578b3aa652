"""Commands of calibtrain as a user runs them, without the seconds that a fresh Python imports for.

One process imports everything and forks: every command has a process of its own, with the folder,
environment and streams that it is given, and ends as `python -m calibtrain` does.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

IMPORTED_WITH = ("JAX", "PYTHON", "LD_", "LANG", "LC_", "TF_", "GRPC")
"""Beginnings of variables that are read while modules are imported: a fork would come too late."""


class Commands:
    """The process that forks, started at the first command.

    Attributes:
        programs: where forked commands keep what they compiled.
    """

    def __init__(self) -> None:
        self.programs: Path | None = None
        self._process: subprocess.Popen[str] | None = None
        self._environment: dict[str, str] = {}
        self._one_at_a_time = threading.Lock()

    def run(
        self, arguments: list[str], environment: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `calibtrain ARGUMENTS` in the folder one is in.

        Raises:
            subprocess.TimeoutExpired: where it takes longer; it is killed then.
        """
        if not self._has(environment):
            return subprocess.run(
                [sys.executable, "-m", "calibtrain", *arguments],
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                env=environment,
            )
        with self._one_at_a_time, tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            wanted = {
                "arguments": arguments,
                "environment": environment,
                "folder": os.getcwd(),
                "programs": self.programs and str(self.programs),
                "streams": [str(out), str(err)],
                "seconds": timeout,
            }
            status = self._ask(wanted)
            if status is None:
                raise subprocess.TimeoutExpired(arguments, timeout)
            texts = (path.read_text() for path in (out, err))
            return subprocess.CompletedProcess(arguments, status, *texts)

    def stop(self) -> None:
        """End the process, if it was started."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def _has(self, environment: dict[str, str]) -> bool:
        """Whether a fork is what a fresh process with this environment would be."""
        if sys.platform != "linux":
            return False
        if self._process is None:
            self._environment = dict(environment)
        return _read_by_imports(environment) == _read_by_imports(self._environment)

    def _ask(self, wanted: dict[str, Any]) -> int | None:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self._environment,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        status: int | None = json.loads(self._process.stdout.readline())
        return status


def _read_by_imports(environment: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith(IMPORTED_WITH)}


def serve() -> None:
    """Run the commands that standard input asks for, one a line; answer with their statuses."""
    from forked import child, end_with_parent, preload, share_programs

    end_with_parent()
    preload()
    answers = os.fdopen(os.dup(1), "w")  # what a library prints is no answer
    os.dup2(2, 1)
    for line in sys.stdin:
        wanted = json.loads(line)

        def run(wanted: dict[str, Any] = wanted) -> None:
            os.chdir(wanted["folder"])
            os.environ.clear()
            os.environ.update(wanted["environment"])
            sys.argv = ["calibtrain", *wanted["arguments"]]
            if wanted["programs"]:
                share_programs(Path(wanted["programs"]))
            from calibtrain.__main__ import main

            main()

        streams = map(Path, wanted["streams"])
        status, _ = child(run, *streams, wanted["seconds"])
        print(json.dumps(status), file=answers, flush=True)


if __name__ == "__main__":
    serve()
