"""Arguments and options that several commands take."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from calibtrain.storage.places import place


class ProgressKind(StrEnum):
    """How progress is shown."""

    auto = "auto"
    rich = "rich"
    plain = "plain"
    json = "json"
    none = "none"


ConfigPath = Annotated[str, typer.Argument(help="YAML file; configs/ has some to start from.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that replace the file's: model.width=256 budget.steps=100"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document as the result.")]
Progress = Annotated[ProgressKind, typer.Option(help="How to show progress (on standard error).")]
RunOrBucket = Annotated[str, typer.Argument(help="A run folder, or gs://BUCKET/PATH.")]


def run_folder(run: str | None, config: Path) -> Path:
    """The folder that --run names, or else the one of a configuration's name."""
    return Path("runs") / config.stem if run is None else place(run)


def as_typed() -> str:
    """The command that runs, as a shell takes it."""
    return shlex.join(["calibtrain", *sys.argv[1:]])
