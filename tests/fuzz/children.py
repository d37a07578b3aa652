"""Commands and questions of a case, each in a forked child; see `forked`."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forked import child, share_programs


@dataclass(frozen=True)
class Ended:
    """How a command ended; a status of None: it was killed when its time was over."""

    status: int | None
    stdout: str
    stderr: str
    seconds: float


def command(
    arguments: Sequence[str],
    place: Path,
    *,
    seconds: float,
    compiled: Path,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run `calibtrain ARGUMENTS` in a folder, in a child."""
    number = len(list(place.parent.glob(f"{place.name}.*.out")))
    out, err = (place.parent / f"{place.name}.{number}.{end}" for end in ("out", "err"))

    def run() -> None:
        os.chdir(place)
        os.environ.update(environment or {})
        sys.argv = ["calibtrain", *arguments]
        share_programs(compiled)
        from calibtrain.cli.main import main

        main()

    status, took = child(run, out, err, seconds)
    read = (path.read_bytes().decode("utf-8", "backslashreplace") for path in (out, err))
    return Ended(status, *read, took)


def reading(function: Callable[[], Any], place: Path, seconds: float = 120) -> Any:
    """The value of a function, as JSON has it, found in a child.

    Raises:
        RuntimeError: where the function failed.
    """
    answer = place.parent / f"{place.name}.answer.json"
    error = answer.with_suffix(".err")

    def run() -> None:
        os.chdir(place)
        answer.write_text(json.dumps(function()))

    status, _ = child(run, Path(os.devnull), error, seconds)
    if status != 0:
        raise RuntimeError(f"{place}: {function}: status {status}: {error.read_text()[-2000:]}")
    return json.loads(answer.read_text())
