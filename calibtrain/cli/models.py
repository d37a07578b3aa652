"""The commands `import` (a model becomes a run) and `export` (a run becomes a model folder)."""

import shlex
from typing import Annotated

import typer

from calibtrain.cli.options import AsJson, Field, Group, RunOrBucket
from calibtrain.process.output import print_json, say, say_notes
from calibtrain.storage.places import place


def import_(
    path: Annotated[str, typer.Argument(help="A Hugging Face folder, or a GGUF file.")],
    run: Annotated[str, typer.Option(help="Run folder to make.")],
    corpus: Annotated[
        str | None,
        typer.Option(
            help="The run's own corpus: kjv (default), pydoc, stdlib, markov, files:GLOB or "
            "tfds:NAME[/CONFIG]."
        ),
    ] = None,
    field: Field = None,
    group: Group = None,
    context: Annotated[
        int | None,
        typer.Option(min=8, help="Context in tokens; default the model's own, at most 2048."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(help="Added token that starts a document; default the model's own."),
    ] = None,
    end: Annotated[
        str | None, typer.Option(help="Added token that ends a document; default the model's own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a run of a pre-trained model, for every command but train.

    Supported are Llama, SmolLM2, Mistral, Qwen2 and Qwen3, as safetensors or GGUF; pickled weights
    are never read.

    Example: calibtrain import SmolLM2-135M --run runs/smollm2
    """
    from calibtrain.cli.terminal import show_counting
    from calibtrain.data.corpora.named import Columns
    from calibtrain.interchange import import_model

    folder = place(run)
    with show_counting("importing") as progress:
        summary = import_model(
            place(path),
            folder,
            corpus=corpus,
            columns=Columns(field, group),
            context=context,
            start=start,
            end=end,
            say=say,
            progress=progress,
            stage=progress.stage,
        )
    about = summary["imported"]
    say_notes(about["notes"])
    if as_json:
        print_json(summary)
        return
    print(
        f"{about['architecture']} of {summary['parameters']['total']:,} parameters, vocabulary "
        f"{summary['tokenizer']['vocab_size']:,}, context {summary['context_tokens']:,} tokens"
    )
    say(f"run: {folder}    measure it: calibtrain evaluate {shlex.quote(str(folder))}")


def export(
    run: RunOrBucket,
    path: Annotated[str, typer.Argument(help="Folder to make.")],
    as_json: AsJson = False,
) -> None:
    """Write a run's latest checkpoint as a folder that transformers loads.

    Example: calibtrain export runs/tiny exported/tiny
    """
    from calibtrain.interchange import export_run

    folder = place(path)
    found = export_run(place(run), folder)
    say_notes(found["notes"])
    if as_json:
        print_json(found)
        return
    print(f"{found['architecture']} of step {found['step']:,}: {folder}")
