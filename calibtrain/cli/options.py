"""Arguments and options that several commands take."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from calibtrain.cli.completion import complete_config, complete_folder
from calibtrain.storage.places import place


class ProgressKind(StrEnum):
    """Ways to show progress."""

    auto = "auto"
    rich = "rich"
    plain = "plain"
    json = "json"
    none = "none"


ConfigPath = Annotated[
    str,
    typer.Argument(
        help="YAML file, or a ready-made name (calibtrain config list).",
        autocompletion=complete_config,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Settings that replace the file's: model.width=256 budget.steps=100"),
]
StudyOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Settings that replace the file's: base.model.width=256 'grid={seed: [0, 1]}'"
    ),
]
RunOrStudyOverrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Settings that replace the file's: model.width=256, or base.model.width=256 of an "
        "ablation"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")]
Progress = Annotated[ProgressKind, typer.Option(help="How to show progress (on standard error).")]
Field = Annotated[
    str | None, typer.Option(help="The field that holds the text of --corpus files or tfds.")
]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        help="The field that holds the text of --corpus files or tfds. Give it once for all "
        "corpora, or once for each, in order.",
    ),
]
Group = Annotated[
    str | None,
    typer.Option(help="The field that names a document's group; results are also given by group."),
]
Groups = Annotated[
    list[str] | None,
    typer.Option(
        "--group",
        help="The field that names a document's group; results are also given by group. '' means "
        "no groups. Give it as often as --field.",
    ),
]
RunOrBucket = Annotated[
    str,
    typer.Argument(help="A run folder, or gs://BUCKET/PATH.", autocompletion=complete_folder),
]


def run_folder(run: str | None, config: Path) -> Path:
    """Returns the folder that --run names, or one named after the configuration."""
    return Path("runs") / config.stem if run is None else place(run)


def as_typed() -> str:
    """Returns the running command as a shell would take it."""
    return shlex.join(["calibtrain", *sys.argv[1:]])
