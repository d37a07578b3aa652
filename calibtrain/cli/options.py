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
Field = Annotated[
    str | None, typer.Option(help="The field that holds the text of --corpus files or tfds.")
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        help="The field that holds the text of --corpus files or tfds: once for all, or once for "
        "each, in order.",
    ),
]
Group = Annotated[
    str | None,
    typer.Option(help="The field that names a document's group: results are also given by group."),
]
Groups = Annotated[
    list[str] | None,
    typer.Option(
        "--group",
        help="The field that names a document's group, by which results are also given; '' for "
        "none. As often as --field.",
    ),
]
RunOrBucket = Annotated[str, typer.Argument(help="A run folder, or gs://BUCKET/PATH.")]


def run_folder(run: str | None, config: Path) -> Path:
    """The folder that --run names, or else the one of a configuration's name."""
    return Path("runs") / config.stem if run is None else place(run)


def as_typed() -> str:
    """The command that runs, as a shell takes it."""
    return shlex.join(["calibtrain", *sys.argv[1:]])
