"""The command `consistency`: how far many samples of one prompt agree."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from calibtrain.cli.completion import complete_folder
from calibtrain.cli.decoding import Weights
from calibtrain.cli.options import (
    AsJson,
    FittedHead,
    Lookahead,
    LookaheadHead,
    LookaheadTop,
    LoopStop,
    MaxBytes,
    MaxTokens,
    MinP,
    RepetitionPenalty,
    ReplaceTrace,
    SaveTrace,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    Typical,
)
from calibtrain.cli.samplers import check_output, check_stops, given_only, option, sampling_of
from calibtrain.errors import UserError
from calibtrain.process.output import print_json, say, say_notes
from calibtrain.storage.places import place

FIGURES = (".html", ".svg")


def consistency(
    run: Annotated[
        str | None,
        typer.Argument(
            help="A run folder, or gs://BUCKET/PATH; none with --answers.",
            autocompletion=complete_folder,
        ),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="What the samples continue; default nothing.")
    ] = None,
    answers: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Measure texts that some other model gave, one a line; - reads standard input.",
        ),
    ] = None,
    questions: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="JSON lines with question and answer: measure, over all questions, whether each "
            "measure tells right answers from wrong ones.",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            help="What is asked, with {question} and, for choices, {choices}; default {question}."
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Samples of a prompt; default 40.")
    ] = None,
    extract: Annotated[
        str,
        typer.Option(
            help="What of a sample is its answer: first-line, number, letter (of a choice), whole, "
            "or regex:PATTERN (its first group)."
        ),
    ] = "first-line",
    similarity: Annotated[
        list[str] | None,
        typer.Option(
            help="By what texts are compared: chrf, jaccard, bleu, token-f1 or edit; may be given "
            "again. The first is drawn. Default chrf and jaccard."
        ),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the heat maps: .html is a page, .svg a picture; both follow the reader's "
            "light or dark scheme.",
        ),
    ] = None,
    seed: Seed = 0,
    max_bytes: MaxBytes = None,
    max_tokens: MaxTokens = None,
    stop: Stop = None,
    loop_stop: LoopStop = True,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    typical: Typical = None,
    repetition_penalty: RepetitionPenalty = None,
    lookahead: Lookahead = None,
    lookahead_top: LookaheadTop = None,
    lookahead_head: LookaheadHead = None,
    head: FittedHead = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Texts drawn side by side, at most; default 40.")
    ] = None,
    weights: Annotated[
        Weights | None,
        typer.Option(help="Type that weights are kept in; default that of the run."),
    ] = None,
    save: SaveTrace = None,
    replace: ReplaceTrace = False,
    as_json: AsJson = False,
) -> None:
    """Measure how far many samples of one prompt agree: in their answers, texts and tokens.

    Measures of answers run from 0 to 1, where all agree. They are undefined where no sample has
    an answer. docs/consistency.md has the formulas.

    Example: calibtrain consistency runs/tiny --prompt "In the beginning" --stop "."
    """
    check_output(lines=False, as_json=as_json, save=save, replace=replace)
    _check_figure(figure)
    chosen = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "typical": typical,
        "repetition_penalty": repetition_penalty,
        "lookahead": lookahead,
        "lookahead_top": lookahead_top,
        "lookahead_head": lookahead_head,
    }
    drawing = {
        **chosen,
        "samples": samples,
        "max_bytes": max_bytes,
        "max_tokens": max_tokens,
        "stop": stop or None,
        "no_loop_stop": None if loop_stop else True,
        "head": head,
        "rows": rows,
        "weights": weights,
        "save": save,
    }
    measured_by = {"extract": extract, "similarities": similarity, "seed": seed}
    if answers is not None:
        asked = {"prompt": prompt, "questions": questions, "template": template, **drawing}
        _measure_answers(run, answers, asked, measured_by, figure, as_json=as_json)
        return
    if run is None:
        raise UserError("RUN: is missing; name a run to draw from, or --answers FILE")
    if template is not None and questions is None:
        raise UserError("--template: is for --questions; write the whole --prompt, or leave it out")
    check_stops(stop)
    drawn_by: dict[str, Any] = {
        "sampling": sampling_of(given_only(chosen), greedy=False),
        "head": head,
        "max_bytes": max_bytes,
        "max_tokens": max_tokens,
        "stop": tuple(stop or ()),
        "loop_stop": loop_stop,
        "rows": rows,
        "weights": None if weights is None else weights.value,
        "save": save,
        "replace": replace,
        "say": say,
        **({} if samples is None else {"samples": samples}),
        **measured_by,
    }
    if questions is not None:
        if prompt is not None or figure is not None:
            raise UserError(
                "--prompt, --figure: are for the samples of one prompt, not for --questions"
            )
        _measure_questions(place(run), Path(questions), template, drawn_by, as_json=as_json)
        return

    from calibtrain.analysis.consistency_of_run import consistency_of_run

    found = consistency_of_run(place(run), prompt or "", **drawn_by)
    _show(found, figure, prompt or "", as_json=as_json)
    count = sum(each.tokens or 0 for each in found.consistency.samples)
    say(f"{count:,} tokens in {found.seconds:.1f} s, programs compiled included")
    if found.path is not None:
        say(f"trace: {found.path}")


def _measure_questions(
    run: Path, file: Path, template: str | None, drawn_by: dict[str, Any], *, as_json: bool
) -> None:
    """Draws samples of each question and measures them together."""
    from calibtrain.analysis.consistency_of_run import consistency_over_questions
    from calibtrain.analysis.consistency_questions import TEMPLATE, questions_to_sample
    from calibtrain.cli.agreement_view import show_questions

    asked, unread = questions_to_sample(
        file, drawn_by["extract"], TEMPLATE if template is None else template
    )
    document = consistency_over_questions(run, asked, **drawn_by)
    document["notes"] = [*unread, *document["notes"]]
    say_notes(document["notes"])
    if as_json:
        print_json(document)
    else:
        show_questions(document)
    say(f"{document['seconds']:.1f} s, programs compiled included")


def _measure_answers(
    run: str | None,
    answers: str,
    asked: dict[str, Any],
    measured_by: dict[str, Any],
    figure: Path | None,
    *,
    as_json: bool,
) -> None:
    """Measures the lines of a file; what draws samples is refused."""
    if run is not None:
        raise UserError(f"RUN: --answers gives the samples, and none is drawn; leave {run} out")
    if useless := [option(name) for name, value in asked.items() if value is not None]:
        raise UserError(f"{', '.join(useless)}: draws samples, and --answers gives them; leave out")

    from calibtrain.analysis.consistency_of_run import consistency_of_answers

    found = consistency_of_answers(_lines(answers), **measured_by)
    _show(found, figure, None, as_json=as_json)


def _show(found: Any, figure: Path | None, prompt: str | None, *, as_json: bool) -> None:
    from calibtrain.cli.agreement_view import show_consistency

    document = found.to_dict()
    say_notes(found.notes)
    if figure is not None:
        _draw(document, figure, prompt)
    if as_json:
        print_json(document)
    else:
        show_consistency(document)


def _draw(document: dict[str, Any], figure: Path, prompt: str | None) -> None:
    """Writes the heat maps."""
    if figure.suffix == ".svg":
        from calibtrain.figures.agreement_svg import agreement_svg
        from calibtrain.storage.disk import write_whole

        write_whole(figure, agreement_svg(document))
    else:
        from calibtrain.report import write_consistency_report

        write_consistency_report(document, figure, prompt=prompt)
    say(f"figure: {figure}")


def _check_figure(figure: Path | None) -> None:
    if figure is None:
        return
    if figure.suffix not in FIGURES:
        raise UserError(
            f"--figure: {figure} must end in {' or '.join(FIGURES)}; the page saves its figures "
            "as PNG"
        )
    if figure.is_dir() or not figure.absolute().parent.is_dir():
        raise UserError(f"--figure: {figure} is a folder, or its folder is not there; make it")


def _lines(name: str) -> list[str]:
    """Returns the lines of a file; the end of its last line ends no other.

    Raises:
        UserError: where it cannot be read, or is not UTF-8.
    """
    try:
        data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        text = data.decode("utf-8-sig").removesuffix("\n")
        return [line.removesuffix("\r") for line in text.split("\n")] if data else []
    except OSError as error:
        raise UserError(f"--answers: {name} cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"--answers: {name} is not UTF-8 (byte {error.start:,})") from None
