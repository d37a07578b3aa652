"""Arguments and options that several commands take."""

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from calibtrain.cli.completion import (
    complete_config,
    complete_fitted_head,
    complete_folder,
    complete_one_of,
)
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
SPLITS = ("train", "validation", "test")
Split = Annotated[
    str,
    typer.Option(help="train, validation or test.", autocompletion=complete_one_of(SPLITS)),
]
RunOrBucket = Annotated[
    str,
    typer.Argument(help="A run folder, or gs://BUCKET/PATH.", autocompletion=complete_folder),
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="Text i depends on the seed and i alone.")
]
MaxBytes = Annotated[int | None, typer.Option(min=1, help="Most bytes of a text; default 1000.")]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, help="Most tokens of a text; default any number.")
]
Stop = Annotated[
    list[str] | None,
    typer.Option(help="A text that ends a text and is not part of it; may be given again."),
]
LoopStop = Annotated[
    bool,
    typer.Option(
        help="End a text that repeats itself exactly: 3 copies of a pattern of at most 128 "
        "tokens, 48 tokens in all."
    ),
]
Greedy = Annotated[bool, typer.Option("--greedy", help="Take the most probable token; draw none.")]
Temperature = Annotated[
    float | None, typer.Option(help="Divide log-probabilities by this; default 1.")
]
TopK = Annotated[int | None, typer.Option(help="Keep the k most probable tokens.")]
TopP = Annotated[
    float | None, typer.Option(help="Keep the most probable tokens of this mass (nucleus).")
]
MinP = Annotated[
    float | None, typer.Option(help="Keep tokens of this share of the largest probability.")
]
Typical = Annotated[
    float | None,
    typer.Option(help="Keep the tokens of this mass whose -log p is nearest to the entropy."),
]
RepetitionPenalty = Annotated[
    float | None,
    typer.Option(help="Multiply log p of tokens that the text holds by this; default 1."),
]
Lookahead = Annotated[
    float | None,
    typer.Option(
        help="p(w) exp(-a H(next | w)), with this a (Braverman et al., Algorithm 2). A step "
        "reads every candidate."
    ),
]
LookaheadTop = Annotated[int | None, typer.Option(help="Candidates of --lookahead; default 128.")]
LookaheadHead = Annotated[
    str | None,
    typer.Option(
        help="Name of a head fitted by calibtrain lookahead, which predicts what --lookahead would "
        "read: one pass a step."
    ),
]
FittedHead = Annotated[
    str | None,
    typer.Option(
        help="Name of a head fitted to the run by temperature fit; it divides the logits.",
        autocompletion=complete_fitted_head,
    ),
]
SaveTrace = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Keep the trace in the run's traces/NAME.parquet."),
]
ReplaceTrace = Annotated[bool, typer.Option("--replace", help="Replace a trace of that name.")]


def run_folder(run: str | None, config: Path) -> Path:
    """Returns the folder that --run names, or one named after the configuration."""
    return Path("runs") / config.stem if run is None else place(run)


def as_typed() -> str:
    """Returns the running command as a shell would take it."""
    return shlex.join(["calibtrain", *sys.argv[1:]])
