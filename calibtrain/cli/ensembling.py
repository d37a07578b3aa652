"""The command `ensemble`."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from calibtrain.cli.completion import complete_folder
from calibtrain.cli.options import AsJson, Seed
from calibtrain.cli.samplers import check_output, given_only, option
from calibtrain.errors import UserError
from calibtrain.process.output import print_json, say, say_notes
from calibtrain.storage.places import place


class Method(StrEnum):
    """What `--method` allows."""

    mixture = "mixture"
    agreement = "agreement"
    union = "union"
    selective = "selective"


class Averages(StrEnum):
    """What `--average` allows."""

    linear = "linear"
    geometric = "geometric"


class Weightings(StrEnum):
    """What `--weighting` allows."""

    posterior = "posterior"
    fixed = "fixed"
    uniform = "uniform"


_ALLOWED: dict[Method, tuple[str, ...]] = {
    Method.mixture: (
        *("average", "weighting", "weights", "greedy", "samples", "seed", "beam", "ratio"),
        "particles",
        *("score", "field", "bytes"),
    ),
    Method.agreement: ("weights", "samples", "beam_width"),
    Method.union: ("weights", "top"),
    Method.selective: ("weights", "top", "draft", "consensus"),
}
"""The options of each method, beside the prompt and its limit."""
_SETTINGS = ("average", "weighting", "weights", "top", "draft", "consensus")
"""Options that are settings of a method under the same name."""
_SCORING = ("average", "weighting", "weights", "beam", "ratio", "score", "field", "bytes")
"""Those that go with --score."""


def ensemble(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Run folders, at least two, or gs://BUCKET/PATH; vocabularies may differ.",
            autocompletion=complete_folder,
        ),
    ],
    prompt: Annotated[
        str | None, typer.Option(help="What the texts begin with; default nothing.")
    ] = None,
    prompt_file: Annotated[
        str | None,
        typer.Option(help="A file that holds the prompt, byte for byte; - reads standard input."),
    ] = None,
    method: Annotated[
        Method,
        typer.Option(
            help="Average the members' next bytes; search for the texts that all members find "
            "probable, each in tokens of its own; take the best of the union of their most "
            "probable tokens; or let the first write alone until the others disagree."
        ),
    ] = Method.mixture,
    average: Annotated[
        Averages | None,
        typer.Option(help="Of a mixture: linear (default); or geometric, normalised at each byte."),
    ] = None,
    weighting: Annotated[
        Weightings | None,
        typer.Option(
            help="Of a mixture: weights follow what each member gave to the text (posterior), stay "
            "as --weights says (fixed), or are equal. Default posterior; geometric: uniform, or "
            "fixed with --weights."
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights of the members, above 0: 2,1. Default equal."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Texts; of a search, the best so many. Default 1.")
    ] = None,
    seed: Seed = 0,
    greedy: Annotated[
        bool, typer.Option("--greedy", help="Of a mixture: take the most probable byte; draw none.")
    ] = False,
    max_bytes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most bytes of a text; default 1000, of other methods than mixture 200."
        ),
    ] = None,
    beam_width: Annotated[
        int | None, typer.Option(help="Of agreement: joint hypotheses; default 5.")
    ] = None,
    particles: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Of a geometric mixture: draw each text from so many particles, weighted so that "
            "it comes from the members' product over texts and not over bytes.",
        ),
    ] = None,
    beam: Annotated[
        int | None,
        typer.Option(
            min=1, max=1000, help="Of a mixture: tokenisations a member follows; default 5."
        ),
    ] = None,
    ratio: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Of a mixture: drop tokenisations below this share of the best; default 0.05.",
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(help="Of union and selective: tokens of each member; default 10."),
    ] = None,
    draft: Annotated[
        int | None,
        typer.Option(help="Of selective: tokens written before the others look; default 5."),
    ] = None,
    consensus: Annotated[
        float | None,
        typer.Option(
            help="Of selective: mean probability of the others above which a token is kept; "
            "default 0.5."
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Show who proposed what, with which probability."),
    ] = False,
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Score the documents of a file (.txt, .jsonl, .parquet) in place of decoding: "
            "bits per byte and byte ECE of a mixture and its members. May be given again.",
        ),
    ] = None,
    field: Annotated[
        str | None, typer.Option(help="The field that holds the text of --score; default text.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--bytes", min=1, help="Bytes of text to score; default all.")
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Keep who proposed what in the first run's ensembles/NAME.parquet; with --score "
            "the scores, in ensembles/NAME.json.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace what is kept under that name.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Decode with several runs together, whatever their vocabularies, or score files with them.

    Example: calibtrain ensemble runs/tiny runs/other --prompt "In the beginning"
    """
    asked = {
        "average": average,
        "weighting": weighting,
        "weights": weights,
        "greedy": greedy or None,
        "samples": samples,
        "seed": seed or None,
        "beam_width": beam_width,
        "particles": particles,
        "beam": beam,
        "ratio": ratio,
        "top": top,
        "draft": draft,
        "consensus": consensus,
        "score": score or None,
        "field": field,
        "bytes": limit,
    }
    given = given_only(asked)
    check_output(lines=False, as_json=as_json, save=save, replace=replace)
    if len(runs) < 2:
        raise UserError(
            "RUNS: one run is no ensemble; name at least two, or use calibtrain generate"
        )
    _check(method, given)
    how = _method(method, given)
    if score:
        beside = {
            "prompt": prompt,
            "prompt_file": prompt_file,
            "max_bytes": max_bytes,
            "explain": explain or None,
        }
        for name in (*given_only(beside), *(each for each in given if each not in _SCORING)):
            raise UserError(f"{option(name)}: is not used with --score; leave it out")
        _score(runs, score, how, given, save=save, replace=replace, as_json=as_json)
        return
    for name in ("field", "bytes"):
        if name in given:
            raise UserError(f"{option(name)}: is for --score; leave it out")
    if particles is not None and (greedy or explain or save):
        other = "--greedy" if greedy else "--explain" if explain else "--save"
        raise UserError(f"--particles: draws whole texts; leave out {other}")
    if greedy and (samples or 1) > 1:
        raise UserError(f"--samples: {samples} greedy texts would all be the same; leave it out")

    from calibtrain.cli.ensemble_view import show_steps, text_line
    from calibtrain.cli.generating import prompts_of
    from calibtrain.ensembles.of_runs import decode_with_runs

    (start,) = prompts_of(None if prompt is None else [prompt], prompt_file)
    alone = method is Method.mixture and (samples or 1) == 1 and not as_json and not particles
    found = decode_with_runs(
        [place(run) for run in runs],
        start,
        how,
        samples=samples or 1,
        seed=seed,
        greedy=greedy,
        max_bytes=max_bytes,
        beam=_beam(given),
        particles=particles,
        explain=explain,
        save=save,
        replace=replace,
        on_piece=(lambda number, text: print(text, end="", flush=True)) if alone else None,
        say=say,
    )
    if as_json:
        print_json(found.to_dict())
        return
    if alone:
        print()
    for number, text in enumerate(found.texts):
        if len(found.texts) > 1:
            print(f"--- text {number}: {text_line(text)}")
        if not alone:
            print(text.text)
        if len(found.texts) == 1:
            say(text_line(text))
        if explain:
            show_steps(text)
    say_notes(found.notes)
    size = sum(text.bytes for text in found.texts)
    if found.path is not None:
        say(f"trace: {found.path}")
    say(f"{size:,} bytes in {found.seconds:.1f} s, programs compiled included")


def _check(method: Method, given: Mapping[str, Any]) -> None:
    """Refuses options of another method."""
    for name in given:
        if name not in _ALLOWED[method]:
            ways = ", ".join(way for way, names in _ALLOWED.items() if name in names)
            raise UserError(f"{option(name)}: is not used with --method {method}; it is for {ways}")


def _method(method: Method, given: Mapping[str, Any]) -> Any:
    """Returns the settings of a method, as they were given."""
    from calibtrain.ensembles.of_runs import method_of

    names = {"width": "beam_width", **{name: name for name in _SETTINGS}}
    settings = {name: given[key] for name, key in names.items() if key in given}
    if "weights" in settings:
        settings["weights"] = _weights(settings["weights"])
    try:
        return method_of(method.value, **settings)
    except ValueError as error:
        name = str(error).partition(":")[0]
        raise UserError(f"{option(names[name])}{str(error).removeprefix(name)}") from None


def _weights(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--weights: {text!r} is not allowed; numbers above 0 with commas between: 2,1"
        ) from None


def _beam(given: Mapping[str, Any]) -> Any:
    """Returns the beam over tokenisations, where one was asked for."""
    if "beam" not in given and "ratio" not in given:
        return None
    from calibtrain.generation.next_byte import Beam

    usual = Beam()
    return Beam(given.get("beam", usual.width), given.get("ratio", usual.ratio))


def _score(
    runs: Sequence[str],
    files: Sequence[str],
    how: Any,
    given: Mapping[str, Any],
    *,
    save: str | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Scores files, and prints a row for the ensemble and for each member."""
    from calibtrain.cli.ensemble_view import show_scores
    from calibtrain.cli.terminal import show_counting
    from calibtrain.ensembles.of_runs import score_with_runs

    with show_counting("scoring") as progress:
        found, path = score_with_runs(
            [place(run) for run in runs],
            files,
            how,
            field=given.get("field", "text"),
            limit=given.get("bytes"),
            beam=_beam(given),
            save=save,
            replace=replace,
            progress=progress,
            say=say,
        )
    say_notes(found.notes)
    if path is not None:
        say(f"written: {path}")
    if as_json:
        print_json(found.document())
        return
    show_scores(found)
