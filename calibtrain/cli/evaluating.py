"""The commands `evaluate` and `report`."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from calibtrain.cli.completion import complete_fitted_head, complete_folder, complete_one_of
from calibtrain.cli.options import AsJson, Fields, Groups, RunOrBucket
from calibtrain.errors import UserError
from calibtrain.process.output import print_json, say, say_notes
from calibtrain.storage.places import place

SPLITS = ("train", "validation", "test")


class Events(StrEnum):
    """The events that are predicted."""

    token = "token"
    byte = "byte"
    word = "word"


def evaluate(
    run: RunOrBucket,
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            help="kjv, pydoc, markov, files:GLOB or tfds:NAME[/CONFIG]; default the run's own. "
            "Several give a table, raw and with one temperature fitted on the run's own corpus."
        ),
    ] = None,
    field: Fields = None,
    group: Groups = None,
    split: Annotated[
        str,
        typer.Option(help="train, validation or test.", autocompletion=complete_one_of(SPLITS)),
    ] = "test",
    limit: Annotated[
        int | None,
        typer.Option("--bytes", min=1, help="Bytes of text to score, about; default all."),
    ] = None,
    events: Annotated[
        Events,
        typer.Option(
            help="What is predicted: token, or byte or word (comparable between vocabularies)."
        ),
    ] = Events.token,
    beam: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Tokenisations followed for --events byte or word; default 5."
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Drop tokenisations below this share of the best; default 0.05."
        ),
    ] = None,
    temperature: Annotated[
        str | None,
        typer.Option(
            help="Name of a head fitted to the run by temperature fit.",
            autocompletion=complete_fitted_head,
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Measure Full-ECE and classwise ECE too, of every probability and not the "
            "largest alone; takes another pass over the text.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure a run's latest checkpoint on a corpus: bits per byte, calibration, entropy rate.

    Events are tokens, or bytes or words summed over tokenisations, which make vocabularies
    comparable.

    Example: calibtrain evaluate runs/tiny --corpus kjv --corpus pydoc
    """
    from calibtrain.cli.result_tables import (
        RESULT_COLUMNS,
        VOCABULARY_COLUMNS,
        domains_table,
        print_table,
        results_tables,
    )
    from calibtrain.cli.terminal import show_counting
    from calibtrain.data.corpora.named import columns_of
    from calibtrain.evaluation import evaluate_domains, evaluate_run, evaluate_run_on_text

    by_tokens = events is Events.token
    if by_tokens and (beam is not None or ratio is not None):
        raise UserError(
            "--beam, --ratio: are for --events byte or word; leave them out, or name one"
        )
    if full and not by_tokens:
        raise UserError(f"--full: is for --events token, not {events.value}; leave one of them out")
    if corpus and len(corpus) > 1:
        if full:
            raise UserError(
                f"--full: takes one --corpus, and {len(corpus)} are named; evaluate them one by one"
            )
        if temperature is not None:
            raise UserError(
                f"--temperature: {temperature!r} takes one --corpus, and {len(corpus)} are named; "
                "several, with every head: calibtrain temperature compare"
            )
        if not by_tokens:
            raise UserError(
                f"--corpus: {len(corpus)} are named; --events {events.value} takes one at a time"
            )
        with show_counting("batches scored") as progress:
            found = evaluate_domains(
                place(run),
                corpus,
                split=split,
                limit=limit,
                fields=field or (),
                groups=group or (),
                progress=progress,
                stage=progress.stage,
                say=say,
            )
        say_notes(note for each in found["evaluations"] for note in each.get("notes", ()))
        if as_json:
            print_json(found)
        else:
            print_table(domains_table(found))
        return
    (columns,) = columns_of(corpus or (), field or (), group or ()).values()
    asked: dict[str, Any] = {
        "corpus": corpus[0] if corpus else None,
        "columns": columns,
        "split": split,
        "limit": limit,
        "temperature": temperature,
        "say": say,
    }
    if by_tokens:
        with show_counting("batches scored") as progress:
            evaluation = evaluate_run(place(run), **asked, full=full, progress=progress)
    else:
        with show_counting("bytes read") as progress:
            evaluation = evaluate_run_on_text(
                place(run), **asked, events=events.value, width=beam, ratio=ratio, progress=progress
            )
    say_notes(evaluation.to_dict().get("notes", ()))
    if as_json:
        print_json(evaluation.to_dict())
    else:
        name = f"{evaluation.about['corpus']}-{split}"
        shown = (*RESULT_COLUMNS, *(VOCABULARY_COLUMNS if full else ()))
        file = evaluation.path and str(evaluation.path)
        row = (name, {**evaluation.about, **evaluation.results, "file": file})
        for table in results_tables([row], shown):
            print_table(table)


def report(
    folder: Annotated[
        str,
        typer.Argument(
            help="A run or study folder, or gs://BUCKET/PATH.", autocompletion=complete_folder
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Write report.html, one self-contained page, from the files of a run or a study."""
    from calibtrain.report import write_report

    path = write_report(place(folder))
    if as_json:
        print_json({"report": str(path)})
    else:
        print(path)
