"""The commands `evaluate` and `report`."""

import functools
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from calibtrain.cli.completion import complete_fitted_head, complete_folder
from calibtrain.cli.options import AsJson, Fields, Groups, Split
from calibtrain.errors import UserError
from calibtrain.process.output import print_json, say, say_notes
from calibtrain.storage.places import place


class Events(StrEnum):
    """The events that are predicted."""

    token = "token"
    byte = "byte"
    word = "word"


class Tokenisations(StrEnum):
    """The tokenisations of a text that are summed over."""

    all = "all"
    canonical = "canonical"


def evaluate(
    run: Annotated[
        str,
        typer.Argument(
            help="A run or study folder, or gs://BUCKET/PATH.", autocompletion=complete_folder
        ),
    ],
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            help="kjv, pydoc, stdlib, markov, files:GLOB or tfds:NAME[/CONFIG]; default the run's "
            "own. Several give a table, raw and with one temperature fitted on that of the run."
        ),
    ] = None,
    field: Fields = None,
    group: Groups = None,
    split: Split = "test",
    limit: Annotated[
        int | None,
        typer.Option("--bytes", min=1, help="Bytes of text to score; default all."),
    ] = None,
    events: Annotated[
        Events,
        typer.Option(
            help="What is predicted: token, or byte or word (comparable between vocabularies)."
        ),
    ] = Events.token,
    tokenisations: Annotated[
        Tokenisations | None,
        typer.Option(
            help="For --events byte or word: all, by a beam (default); or canonical, those that "
            "the tokenizer itself writes, which is exact (BPE). They are different events."
        ),
    ] = None,
    beam: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Tokenisations followed for --events byte or word; default 5. With "
            "--tokenisations canonical: measure such a beam too, and its excess.",
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
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Arms of a study that are measured side by side; default 1."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a run's latest checkpoint on a corpus: bits per byte, calibration, entropy rate.

    Given the folder of a study, it measures every finished arm.

    Events are tokens, or bytes or words summed over tokenisations, which make vocabularies
    comparable.

    Example: calibtrain evaluate runs/tiny --corpus kjv --corpus pydoc
    """
    from calibtrain.cli.result_tables import (
        RESULT_COLUMNS,
        VOCABULARY_COLUMNS,
        domains_table,
        print_table,
    )
    from calibtrain.cli.terminal import show_counting
    from calibtrain.data.corpora.named import columns_of
    from calibtrain.evaluation import evaluate_domains, evaluate_run, evaluate_run_on_text
    from calibtrain.runs.records import STUDY_FILE

    if jobs is not None and not (place(run) / STUDY_FILE).exists():
        raise UserError(f"--jobs: is for the folder of a study, which {run} is not; leave it out")
    by_tokens = events is Events.token
    if by_tokens and (beam is not None or ratio is not None):
        raise UserError(
            "--beam, --ratio: are for --events byte or word; leave them out, or name one"
        )
    if by_tokens and tokenisations is not None:
        raise UserError(
            "--tokenisations: is for --events byte or word; leave it out, or name one of them"
        )
    if full and not by_tokens:
        raise UserError(f"--full: is for --events token, not {events.value}; leave one of them out")
    if corpus and len(corpus) > 1:
        if (place(run) / STUDY_FILE).exists():
            raise UserError(f"--corpus: takes one for a study ({run}), and {len(corpus)} are named")
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

    measure: Any = functools.partial(evaluate_run, **asked, full=full)
    if not by_tokens:
        how: dict[str, Any] = {"events": events.value, "width": beam, "ratio": ratio}
        how["tokenisations"] = (tokenisations or Tokenisations.all).value
        measure = functools.partial(evaluate_run_on_text, **asked, **how)

    shown = (*RESULT_COLUMNS, *(VOCABULARY_COLUMNS if full else ()))
    if (place(run) / STUDY_FILE).exists():
        from calibtrain.ablation.evaluated import evaluate_study

        with show_counting("all arms") as progress:
            arms = evaluate_study(place(run), measure, jobs=jobs or 1, progress=progress, say=say)
        first = next(iter(arms.values()))
        say_sample(first, limit)
        say_notes(dict.fromkeys(note for each in arms.values() for note in each.notes))
        for name, each in arms.items():
            say_excess(each, f"{name}: ")
        if as_json:
            print_json({"arms": {name: each.to_dict() for name, each in arms.items()}})
        else:
            _print_evaluations(arms, shown)
        return
    with show_counting("batches scored" if by_tokens else "bytes read") as progress:
        evaluation = measure(place(run), progress=progress)
    say_sample(evaluation, limit)
    say_notes(evaluation.to_dict().get("notes", ()))
    say_excess(evaluation)
    if as_json:
        print_json(evaluation.to_dict())
    else:
        _print_evaluations({f"{evaluation.about['corpus']}-{split}": evaluation}, shown)


def _print_evaluations(evaluations: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Prints evaluations by name, with the files that hold them."""
    from calibtrain.cli.result_tables import print_table, results_tables

    rows = [
        (name, {**each.about, **each.results, "file": each.path and str(each.path)})
        for name, each in evaluations.items()
    ]
    for table in results_tables(rows, columns):
        print_table(table)


def say_excess(evaluation: Any, before: str = "") -> None:
    """Says how a beam over all tokenisations differs from the canonical ones, if it was asked."""
    if "excess" not in evaluation.results:
        return
    beam = evaluation.results["beam_over_all"]
    say(
        f"{before}a beam of {beam['beam']} over all tokenisations (ratio {beam['ratio']:g}): "
        f"{beam['bits_per_byte']:.4f} bits per byte, "
        f"{evaluation.results['excess']['bits_per_byte']:+.4f} against the canonical ones"
    )


def say_sample(evaluation: Any, limit: int | None) -> None:
    """Says which text was scored, where that is not the whole split."""
    sample = evaluation.about["sample"]
    if limit is None or sample["bytes"] == sample["of_bytes"]:
        return
    of = f"{sample['bytes']:,} of {sample['of_bytes']:,} bytes"
    documents = f"{sample['documents']:,} of {sample['of_documents']:,} documents"
    if sample["cut"]:
        say(f"scored: {of}, in stretches of {documents}")
    else:
        say(
            f"scored: {of}, {documents}: they are taken whole by tokens, so that --bytes {limit:,} "
            "is met by the next whole document"
        )


def report(
    folder: Annotated[
        str,
        typer.Argument(
            help="A run or study folder, or gs://BUCKET/PATH.", autocompletion=complete_folder
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Write report.html, one self-contained page, from the files of a run or a study.

    Example: calibtrain report runs/tiny
    """
    from calibtrain.report import write_report

    path = write_report(place(folder))
    if as_json:
        print_json({"report": str(path)})
    else:
        print(path)
