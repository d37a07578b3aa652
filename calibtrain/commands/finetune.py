"""The command `finetune`."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from calibtrain.interruption import leaving
from calibtrain.places import place
from calibtrain.terminal import print_json, say


def finetune(
    config: Annotated[Path, typer.Argument(help="YAML file; configs/finetune/ has some.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Settings that replace the file's: finetune.run=runs/tiny"),
    ] = None,
    run: Annotated[
        str | None, typer.Option(help="Run folder; default runs/NAME. Resumed if there.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document as the result.")
    ] = False,
    progress: Annotated[
        str, typer.Option(help="How to show progress: auto, rich, plain, json or none.")
    ] = "auto",
) -> None:
    """Fine-tune a run, trained here or imported, on prompts and answers, or on preferences.

    Calibration is measured along the way, on the run's corpus and on held-out answers. Started
    again with the same arguments, it goes on from the last checkpoint.

    Example: calibtrain finetune configs/finetune/sft.yaml finetune.run=runs/tiny --run runs/sft
    """
    path = place(run or Path("runs") / config.stem)
    with leaving(path):
        from calibtrain.finetuning import finetune as start
        from calibtrain.finetuning import resolve
        from calibtrain.parallel import hosts
        from calibtrain.terminal import describe_stop, make_view, print_table, results_table

        hosts.start()
        settings = resolve(config, overrides or ())
        with make_view(progress) as view:
            outcome = start(settings, path, observer=lambda event: view("", event))
    if not hosts.is_primary():
        return
    if outcome.status == "stopped":
        say(describe_stop(outcome.step))
    if as_json:
        print_json({**outcome.summary, "evaluations": outcome.results})
    elif outcome.status == "done":
        print_table(results_table(list(outcome.results.items()), "evaluation"))
        say(f"run: {path}    report: calibtrain report {shlex.quote(str(path))}")
