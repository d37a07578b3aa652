"""The command `lens`: the entropy of what each layer of a run would predict."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from calibtrain.cli.options import AsJson, FittedHead, RunOrBucket
from calibtrain.errors import UserError
from calibtrain.process.output import can_print, print_json, say
from calibtrain.storage.places import place

_GIVEN_LIMIT = 20_000  # bytes of each text
_SHOWN = 48  # tokens of a text in a terminal
_BARS, _PLAIN_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_COLOURS = ("blue", "cyan", "green", "yellow", "red")


def lens(
    run: RunOrBucket,
    text: Annotated[
        list[str] | None, typer.Option(help="Look into this text; may be given again.")
    ] = None,
    text_file: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Look into the text of a file; - reads standard input; may be given again.",
        ),
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CSV, JSON lines or Parquet with columns text and label (and prompt, which is "
            "seen and not counted): can labels be told from the profiles?",
        ),
    ] = None,
    renyi: Annotated[
        list[float] | None,
        typer.Option(
            metavar="ORDER", help="Compute the Renyi entropy of this order too; may be given again."
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Give a profile of every so many tokens too.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(min=1, help="Most bytes of a --text-file; default 20,000.")
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option(help="Nearest neighbours that vote on a label; default 29.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(help="Folds of the cross-validation; default 10.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of the folds and of guesses; default 0.")
    ] = None,
    head: FittedHead = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the result as JSON.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(metavar="PAGE.html", help="Write the map of layers and tokens as a page."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the entropy of what each layer would predict of a text, in nats (Entropy-Lens).

    A row of the map is a token, a column a layer, and the last column the run's own prediction. A
    layer expands a token where it raises the entropy, and prunes it where it lowers it. The result
    is kept in RUN/analysis/.

    Example: calibtrain lens runs/tiny --text "In the beginning"
    """
    protocol = {"neighbours": neighbours, "folds": folds, "seed": seed}
    given = {name: value for name, value in protocol.items() if value is not None}
    if labelled is None and given:
        raise UserError(f"--{next(iter(given))}: is of --labelled; leave it out, or give texts")
    if labelled is not None:
        alone = {"text": text, "text-file": text_file, "window": window, "max-bytes": max_bytes}
        if useless := [f"--{name}" for name, value in alone.items() if value is not None]:
            raise UserError(f"{', '.join(useless)}: does not go with --labelled; leave it out")
    elif not text and not text_file:
        raise UserError("--text: give a text, a --text-file, or --labelled texts")
    if max_bytes is not None and not text_file:
        raise UserError("--max-bytes: is of --text-file; leave it out")
    _check_target("--output", output, ())
    _check_target("--figure", figure, (".html", ".htm"))

    from calibtrain.analysis.lens_of_run import look_into_run, read_labelled
    from calibtrain.analysis.separation import CrossValidation
    from calibtrain.cli.terminal import show_counting
    from calibtrain.cli.tracing import given_text
    from calibtrain.storage.disk import write_whole

    texts = [
        *(text or ()),
        *(given_text(n, "--text-file", max_bytes or _GIVEN_LIMIT) for n in text_file or ()),
    ]
    sources = ["--text"] * len(text or ()) + [f"--text-file: {n}" for n in text_file or ()]
    for source, own in zip(sources, texts, strict=True):
        if not own:
            raise UserError(f"{source}: is empty; give a text of at least one character")
    with show_counting("looking") as progress:
        found = look_into_run(
            place(run),
            texts,
            labelled=[] if labelled is None else read_labelled(labelled),
            renyi=renyi or (),
            window=window,
            head=head,
            progress=progress,
            say=say,
            by=CrossValidation(**given),
        )
    document = found.to_dict()
    if output is not None:
        write_whole(output, json.dumps(document, indent=1) + "\n")
    if figure is not None:
        from calibtrain.figures import entropy_lens

        entropy_lens(document).write_html(figure, include_plotlyjs=True)
    if as_json:
        print_json(document)
    elif labelled is not None:
        _print_labels(document)
    else:
        _print_map(document)
        _print_layers(document)
    for path in (output, figure, None if as_json else found.path):
        if path is not None:
            say(f"written: {path}")


def _check_target(option: str, path: Path | None, suffixes: tuple[str, ...]) -> None:
    """Raises a UserError where a file to be written cannot be one."""
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        raise UserError(f"{option}: {path} is not allowed; a page, which ends in .html")
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UserError(f"{option}: {path} is not a file in a folder that is there")


def _print_map(document: dict[str, Any]) -> None:
    """Prints a row for each token and a bar for each layer."""
    from rich.console import Console
    from rich.text import Text

    from calibtrain.storage.byte_pieces import spelled_piece

    console = Console(highlight=False, soft_wrap=True)
    bars = _BARS if can_print(_BARS) else _PLAIN_BARS
    every = [
        value
        for text in document["texts"]
        for row in text["rows"][:_SHOWN]
        for value in row["entropy"]["shannon"]
    ]
    top = max(every, default=0.0) or 1.0
    for number, text in enumerate(document["texts"]):
        if len(document["texts"]) > 1:
            console.print(Text(f"text {number}", "bold"))
        for row in text["rows"][:_SHOWN]:
            piece = spelled_piece(row) if row["piece"] is None else row["piece"]
            shown = "".join(c if c.isprintable() else "·" for c in piece)
            line = Text(shown[:16].rjust(16) + " ")
            for value in row["entropy"]["shannon"]:
                share = min(1.0, max(0.0, value / top))
                colour = _COLOURS[round(share * (len(_COLOURS) - 1))]
                line.append(bars[round(share * (len(bars) - 1))], style=colour)
            line.append(f" {row['entropy']['shannon'][-1]:.3f}", "dim")
            console.print(line)
        if len(text["rows"]) > _SHOWN:
            console.print(
                f"{'':16} and {len(text['rows']) - _SHOWN:,} more tokens (--figure, --json)"
            )
    print()


def _print_layers(document: dict[str, Any]) -> None:
    """Prints means over the tokens of all texts, and what each layer expands and prunes."""
    from calibtrain.cli.analysing import print_rows

    texts = [text for text in document["texts"] if text["tokens"]]
    count = sum(text["tokens"] for text in texts)
    names = list(document["texts"][0]["profile"])
    rows = []
    for layer in range(document["layers"]):
        cells = [str(layer + 1)]
        for name in names:
            total = sum(text["tokens"] * text["profile"][name][layer] for text in texts)
            cells.append(f"{total / count:.3f}" if count else "-")
        for key in ("expanded", "pruned"):
            own = [text[key]["shannon"][layer - 1] for text in texts] if layer else []
            cells.append(f"{sum(own):,}" if layer else "-")
        rows.append(cells)
    head = "" if document["head"] is None else f", temperature head {document['head']}"
    print_rows(
        f"mean entropy after each layer, {count:,} tokens, nats{head}",
        "layer",
        (*names, "expanded", "pruned"),
        rows,
    )


def _print_labels(document: dict[str, Any]) -> None:
    """Prints the mean profile of each label, and how well labels are told apart."""
    from calibtrain.cli.analysing import print_rows

    first = next(iter(document["separation"].values()))
    rows = []
    for label, count in first["labels"].items():
        own = [t["profile"]["shannon"] for t in document["texts"] if t["label"] == label]
        means = [sum(each) / len(own) for each in zip(*own, strict=True)]
        rows.append([label, f"{count:,}", *(f"{mean:.3f}" for mean in means)])
    layers = [f"layer {layer + 1}" for layer in range(document["layers"])]
    print_rows("mean entropy after each layer, nats", "label", ("texts", *layers), rows)
    print()
    print_rows(
        f"{first['neighbours']} nearest neighbours on profiles, {len(first['folds'])} folds",
        "entropy",
        ("area under ROC", "of guesses", "95 % interval of the difference", "p"),
        [
            [
                name,
                f"{each['area']:.3f}",
                f"{each['dummy_area']:.3f}",
                f"[{each['lower']:+.3f}, {each['upper']:+.3f}]",
                f"{each['p']:.2g}",
            ]
            for name, each in document["separation"].items()
        ],
    )
