"""The commands `temperature fit`, `list` and `compare`: heads on a finished run."""

from typing import Annotated, Any

import typer

from calibtrain.cli.completion import complete_one_of
from calibtrain.cli.options import AsJson, Field, Fields, RunOrBucket
from calibtrain.errors import UserError
from calibtrain.process.output import print_json, say, say_notes
from calibtrain.storage.places import place

temperature_app = typer.Typer(
    no_args_is_help=True,
    help="Fit temperature heads to a finished run; the run's own parameters stay as they are.",
)

KINDS = (
    "global",
    "vector",
    "matrix",
    "low_rank_matrix",
    "position",
    "linear",
    "mlp",
    "adaptive",
    "thermometer",
)
"""Kinds of heads, as a shell completes them; `config.HEADS` says what is allowed."""
Limit = Annotated[
    int | None,
    typer.Option("--bytes", min=1, help="Bytes of each text, about; default all."),
]
Keep = Annotated[
    bool, typer.Option(help="Keep the model's hidden states in the cache, if they fit.")
]
Steps = Annotated[
    int, typer.Option(min=1, help="Steps of AdamW (a global head is fitted exactly).")
]


@temperature_app.command()
def fit(
    run: RunOrBucket,
    head: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(KINDS[:-1])} or {KINDS[-1]}.",
            autocompletion=complete_one_of(KINDS),
        ),
    ],
    settings: Annotated[
        list[str] | None, typer.Argument(help="Settings of the head: limit=20 hidden=64")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the head; by default its kind, loss and corpus.")
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="Text to fit on; default the run's.")] = None,
    field: Field = None,
    split: Annotated[str, typer.Option(help="validation or train.")] = "validation",
    limit: Limit = None,
    loss: Annotated[str, typer.Option(help="nll or selective_smoothing.")] = "nll",
    alpha: Annotated[float, typer.Option(help="Alpha of selective smoothing.")] = 0.5,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Give right and wrong tokens half the weight each.")
    ] = False,
    steps: Steps = 500,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-9, max=10.0, help="Peak rate; the default is by kind.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of parameters and order.")] = 0,
    keep: Keep = True,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace a head of the same name.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fit a head to a run's latest checkpoint, whose own parameters stay as they are.

    Example: calibtrain temperature fit runs/tiny --head linear
    """
    from calibtrain.cli.terminal import show_counting
    from calibtrain.fitting.head import Recipe
    from calibtrain.posthoc import fit_temperature_head

    with show_counting("fitting") as progress:
        fitted = fit_temperature_head(
            place(run),
            head,
            name=name,
            corpus=corpus,
            field=field,
            split=split,
            limit=limit,
            loss=loss,
            alpha=alpha,
            balanced=balanced,
            settings=_settings(settings or []),
            recipe=Recipe(steps=steps, learning_rate=learning_rate, seed=seed),
            keep=keep,
            replace=replace,
            say=say,
            progress=progress,
        )
    say_notes(fitted.about["fitted_on"].get("notes", ()))
    if as_json:
        print_json(fitted.about)
        return
    _print_heads([fitted.about])
    say(f"measure it: calibtrain evaluate {run} --temperature {fitted.name}")


@temperature_app.command("list")
def list_(run: RunOrBucket, as_json: AsJson = False) -> None:
    """List the heads that were fitted to a run, and which of them cannot be used."""
    from calibtrain.posthoc.listing import describe_heads

    heads = describe_heads(place(run))
    if as_json:
        print_json({"heads": heads})
    elif heads:
        _print_heads(heads)
    else:
        say(f"{run}: no head was fitted yet; to fit one: calibtrain temperature fit --help")
    for head in heads:
        if not head["usable"]:
            say(f"{head['name']}: cannot be used: {head['problem']}")


@temperature_app.command()
def compare(
    run: RunOrBucket,
    heads: Annotated[
        str | None, typer.Option(help="Kinds: global,linear; default all that the model can have.")
    ] = None,
    corpus: Annotated[
        list[str] | None,
        typer.Option(help="Corpus whose test split is measured; default the run's. Repeatable."),
    ] = None,
    field: Fields = None,
    group: Annotated[
        str | None, typer.Option(help="Field of a document's group; each is left out in turn.")
    ] = None,
    limit: Limit = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of AdamW; default 500, or 1000 for left-out groups."),
    ] = None,
    leave_one_group_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-group-out",
            help="Fit a Thermometer for each group of documents to the other groups.",
        ),
    ] = False,
    keep: Keep = True,
    as_json: AsJson = False,
) -> None:
    """Fit every head on validation text and compare it on test text with no head.

    Brackets are 95 % intervals of the difference from no head, on the same documents.

    Example: calibtrain temperature compare runs/tiny --corpus kjv --corpus pydoc
    """
    from calibtrain.cli.terminal import show_counting

    chosen = None if heads is None else [kind.strip() for kind in heads.split(",")]
    if group is not None and not leave_one_group_out:
        raise UserError("--group: is for --leave-one-group-out; leave it out")
    if leave_one_group_out:
        if chosen is not None or len(corpus or ()) > 1:
            raise UserError("--leave-one-group-out: takes one --corpus and no --heads")
        from calibtrain.data.corpora.named import Columns, columns_of
        from calibtrain.fitting.thermometer import ThermometerRecipe
        from calibtrain.posthoc.leave_one_out import leave_one_group_out as leave_out

        (columns,) = columns_of(corpus or (), field or ()).values()
        with show_counting("working") as progress:
            found = leave_out(
                place(run),
                corpus=corpus[0] if corpus else None,
                columns=Columns(columns.field, group),
                limit=limit,
                recipe=ThermometerRecipe() if steps is None else ThermometerRecipe(steps=steps),
                keep=keep,
                say=say,
                progress=progress,
                stage=progress.stage,
            )
        tables = [(each["group"], each["rows"]) for each in found["groups"]]
        noted = [found["fitted_on"]]
    else:
        from calibtrain.fitting.head import Recipe
        from calibtrain.posthoc.compare import compare_heads

        with show_counting("working") as progress:
            found = compare_heads(
                place(run),
                heads=chosen,
                corpora=corpus or (),
                fields=field or (),
                limit=limit,
                recipe=Recipe() if steps is None else Recipe(steps=steps),
                keep=keep,
                say=say,
                progress=progress,
                stage=progress.stage,
            )
        tables = [(f"{each['corpus']}-{each['split']}", each["rows"]) for each in found["corpora"]]
        noted = found["corpora"]
    say_notes(note for each in noted for note in each.get("notes", ()))
    if as_json:
        print_json(found)
        return
    for title, rows in tables:
        _print_comparison(title, rows)


def _print_comparison(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints one row per head; each figure has the interval of its difference from no head."""
    from rich.table import Table

    from calibtrain.cli.result_tables import add_columns, print_table
    from calibtrain.metrics.quantities import COMPARED, QUANTITIES

    table = Table(show_edge=False, title=f"{title}, by token", title_justify="left")
    table.add_column("head")
    add_columns(table, COMPARED)
    facts = [key for key in ("temperature", "parameters", "seconds") if key in rows[0]]
    for heading in facts:
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        cells = []
        for key in COMPARED:
            cell = QUANTITIES[key].plain(row[key])
            away = row.get("differences", {}).get(key)
            if away:
                cell += f" [{away['lower']:+.4f}, {away['upper']:+.4f}]"
            cells.append(cell)
        shown = {"temperature": ".4f", "parameters": ",", "seconds": ".1f"}
        table.add_row(row["head"], *cells, *(format(row[key], shown[key]) for key in facts))
    print_table(table)


def _settings(pairs: list[str]) -> dict[str, Any]:
    """Returns the settings in texts `key=value`, whose values are read as YAML."""
    from calibtrain.config import apply_overrides

    found = apply_overrides({}, pairs)
    if "kind" in found:
        raise UserError("kind: is said by --head; leave it out")
    return found


def _print_heads(heads: list[dict[str, Any]] | list[Any]) -> None:
    from rich.table import Table

    from calibtrain.cli.result_tables import print_table

    table = Table(show_edge=False)
    table.add_column("head")
    table.add_column("fitted on")
    for title in ("step", "parameters", "nll before", "after, nats/token", "seconds"):
        table.add_column(title, justify="right")
    for head in heads:
        if "fitted_on" not in head:
            table.add_row(f"{head['name']} (damaged)")
            continue
        on = head["fitted_on"]
        table.add_row(
            head["name"] + ("" if head.get("usable", True) else " (another checkpoint)"),
            f"{on['corpus']}-{on['split']}",
            str(head["checkpoint"]["step"]),
            f"{head['parameters']:,}",
            f"{head['nll_before']:.5f}",
            f"{head['nll_after']:.5f}",
            f"{head['seconds']:.2f}",
        )
    print_table(table)
