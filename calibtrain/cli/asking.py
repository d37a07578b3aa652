"""The command `qa`: how well a run knows what it knows, on questions with known answers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from calibtrain.cli.completion import complete_one_of
from calibtrain.cli.options import AsJson, FittedHead, RunOrBucket
from calibtrain.errors import UserError
from calibtrain.process.output import print_json, say, say_notes
from calibtrain.storage.places import place

FIGURES = (
    *("accuracy", "mean_confidence", "signed_gap", "ece", "ece_mass", "smooth_calibration_error"),
    *("brier", "multiclass_brier", "nll", "area_under_roc", "area_under_risk_coverage"),
)


def qa(
    run: RunOrBucket,
    questions: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="JSON lines with the keys question, answer and, for multiple choice, choices; "
            "group too, to give results by. Or a built-in set: cloze, capitals, arithmetic.",
        ),
    ],
    template: Annotated[
        list[str] | None,
        typer.Option(
            help="How a question becomes text, with {question} and {answer}; \\n is a new line. "
            "Given again: confidences are averaged over all."
        ),
    ] = None,
    paraphrases: Annotated[
        bool, typer.Option("--paraphrases", help="Average over all templates of the set.")
    ] = False,
    tokenisations: Annotated[
        str,
        typer.Option(
            help="Score a candidate by the tokens that the tokenizer writes (own), or by its "
            "bytes, over all tokenisations (all), which compares between vocabularies.",
            autocompletion=complete_one_of(("own", "all")),
        ),
    ] = "own",
    end: Annotated[
        bool, typer.Option("--end", help="Count the end of the text after a candidate too.")
    ] = False,
    temperature: Annotated[
        str, typer.Option(help="Divide candidates' log-probabilities by this; fit fits it on half.")
    ] = "1",
    trees: Annotated[
        bool,
        typer.Option("--trees", help="Fit boosted trees on half, in place of a temperature."),
    ] = False,
    bins: Annotated[int, typer.Option(help="Equal-width bins of the ECE; a divisor of 480.")] = 20,
    candidates: Annotated[
        int, typer.Option(help="Hypotheses of the beam where questions have no choices.")
    ] = 5,
    max_bytes: Annotated[int, typer.Option(help="Most bytes of an answer that it finds.")] = 32,
    count: Annotated[
        int | None, typer.Option(help="Questions of a built-in set; default 400.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="Corpus of cloze questions; default the run's own.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of built-in questions and halves.")] = 0,
    head: FittedHead = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result as JSON.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask questions, and measure how well confidence tells right answers from wrong ones.

    The confidence of a candidate is the softmax of all candidates' log-probabilities, summed over
    each string (Jiang et al.). Two kinds of events: every candidate, and the top one alone.
    Brackets are 95 % intervals over questions. The result is kept in RUN/analysis/.

    Example: calibtrain qa runs/tiny --questions cloze --count 100
    """
    from calibtrain.analysis.question_candidates import Protocol
    from calibtrain.analysis.questions import ask_run
    from calibtrain.cli.terminal import show_counting
    from calibtrain.storage.disk import write_whole

    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise UserError(f"--output: {output} is not a file in a folder that is there")
    protocol = Protocol(
        templates=tuple(text.replace("\\n", "\n") for text in template or ()),
        paraphrases=paraphrases,
        tokenisations=tokenisations,
        end=end,
        temperature=_temperature(temperature),
        fit=temperature == "fit",
        trees=trees,
        bins=bins,
        beam=candidates,
        max_bytes=max_bytes,
        count=count,
        seed=seed,
    )
    with show_counting("asking") as progress:
        found = ask_run(
            place(run),
            questions,
            corpus=corpus,
            head=head,
            protocol=protocol,
            progress=progress,
            say=say,
        )
    document = found.to_dict()
    say_notes(found.top.notes)
    if output is not None:
        write_whole(output, json.dumps(document, indent=1) + "\n")
        say(f"written: {output}")
    if as_json:
        print_json(document)
    else:
        _print_figures(document)
        _print_groups(document)
        if found.path is not None:
            say(f"written: {found.path}")


def _temperature(text: str) -> float:
    if text == "fit":
        return 1.0
    try:
        return float(text)
    except ValueError:
        raise UserError(f"--temperature: {text!r} is not allowed; a number, or fit") from None


def _print_figures(document: Mapping[str, Any]) -> None:
    """Prints the figures of both kinds of events side by side."""
    from calibtrain.cli.analysing import print_rows
    from calibtrain.metrics.quantities import QUANTITIES

    kinds = (document["top_candidate"], document["every_candidate"])
    rows = []
    for key in FIGURES:
        if all(each.get(key) is None for each in kinds):
            continue
        rows.append([QUANTITIES[key].name, *(_cell(each, key) for each in kinds)])
    temperature = document["temperature"]
    tempered = "" if temperature == 1 else f", temperature {temperature:.3f}"
    print_rows(
        f"{document['set']}: {document['questions']:,} questions, "
        f"{int(kinds[1]['tokens']):,} candidates{tempered}",
        "",
        ("top candidate", "every candidate"),
        rows,
    )
    if fit := document["fit"]:
        said = ""
        for name in ("top", "every"):
            if each := fit.get(f"{name}_candidate_ece_difference"):
                ends = f"[{each['lower']:+.3f}, {each['upper']:+.3f}]"
                said += f"; ECE here, {name} candidate: {each['estimate']:+.3f} {ends}"
        what = "boosted trees"
        if fit["method"] == "temperature":
            what = f"temperature {temperature:.4f} (nll {fit['nll_before']:.4f} to "
            what += f"{fit['nll_after']:.4f} there)"
        say(f"fitted on {fit['questions']:,} other questions: {what}{said}")


def _print_groups(document: Mapping[str, Any]) -> None:
    """Prints all questions and each group side by side, with the gap of confidence."""
    from calibtrain.cli.analysing import print_rows

    own = {row["label"]: row for row in document["top_candidate"].get("groups") or ()}
    rows = []
    for gap in document["gaps"]:
        figures = document["top_candidate"] if gap["label"] is None else own[gap["label"]]
        cells = [_cell(figures, key) for key in ("accuracy", "mean_confidence", "ece")]
        ends = "" if gap["lower"] is None else f" [{gap['lower']:+.3f}, {gap['upper']:+.3f}]"
        shown = "-" if gap["gap"] is None else f"{gap['gap']:+.3f}{ends}"
        usual = "-" if gap["calibrated"] is None else f"{gap['calibrated']:+.3f}"
        name = "all" if gap["label"] is None else gap["label"]
        rows.append([name, f"{gap['questions']:,}", *cells, shown, usual])
    print()
    print_rows(
        "top candidate; gap: mean confidence when right less when wrong",
        "",
        ("questions", "accuracy", "confidence", "ECE", "gap", "gap if calibrated"),
        rows,
    )


def _cell(figures: Mapping[str, Any], key: str) -> str:
    from calibtrain.metrics.quantities import QUANTITIES

    if figures.get(key) is None:
        return "-"
    plain = QUANTITIES[key].plain
    interval = (figures.get("intervals") or {}).get(key)
    ends = f" [{plain(interval['lower'])}, {plain(interval['upper'])}]" if interval else ""
    return f"{plain(figures[key])}{ends}"
