"""The command `measure`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from calibtrain.cli.options import AsJson
from calibtrain.errors import UserError
from calibtrain.process.output import print_json, say, say_notes

GROUP_COLUMNS = ("accuracy", "mean_confidence", "ece", "signed_gap")


def measure(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="CSV, JSON lines or Parquet (.csv, .jsonl, .parquet; .gz too) with the columns "
            "confidence and correct, or logprobs and label; or samples_*.jsonl that "
            "lm-evaluation-harness writes with --log_samples. Several files are groups.",
        ),
    ],
    confidence: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Probability of the prediction.")
    ] = None,
    correct: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Was it right: 0, 1, true or false.")
    ] = None,
    logprobs: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Log-probabilities of the choices, a list; default logprobs or choices.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Index of the right choice, counted from 0; default label or target.",
        ),
    ] = None,
    document: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="What rows that belong together have in common: intervals are over documents. "
            "Default document where there is one, else each row is one.",
        ),
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Give results by its values too; default group where there is one, else the file.",
        ),
    ] = None,
    bins: Annotated[int, typer.Option(help="Equal-width bins of the ECE; a divisor of 480.")] = 15,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the results as JSON.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="PAGE.html", help="Write a page with figures and tables."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the calibration of any model's predictions: every error with its interval.

    Example: calibtrain measure predictions.csv --report page.html
    """
    from calibtrain.data.predictions.files import ColumnNames, read_predictions
    from calibtrain.evaluation.predictions import measured

    _check_targets(files, {"--output": output, "--report": report})
    columns = ColumnNames(confidence, correct, logprobs, label, document, group)
    evaluation = measured(read_predictions(files, columns), bins=bins)
    record = evaluation.record()
    say_notes(evaluation.notes)
    if output is not None:
        record.write(output)
        say(f"results: {output}")
    if report is not None:
        from calibtrain.report import write_evaluation_report

        write_evaluation_report(record, report)
        say(f"report: {report}")
    if as_json:
        print_json(record.document())
    else:
        _print_tables(record.document())


def _check_targets(files: Sequence[str], targets: Mapping[str, Path | None]) -> None:
    """Raises a UserError where a file to be written is a folder, or read or written already."""
    taken = {
        Path(file).expanduser().resolve(): "is one of the files to be measured" for file in files
    }
    for option, path in targets.items():
        if path is None:
            continue
        if path.is_dir():
            raise UserError(f"{option}: {path} is a folder; name a file in it")
        if not path.absolute().parent.is_dir():
            raise UserError(
                f"{option}: {path}: there is no folder {path.absolute().parent}; make it"
            )
        if why := taken.get(path.resolve()):
            raise UserError(f"{option}: {path} {why}, and would be overwritten; name another")
        taken[path.resolve()] = f"is the file of {option}"


def _print_tables(found: Mapping[str, Any]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from calibtrain.cli.result_tables import print_table
    from calibtrain.metrics.quantities import QUANTITIES, SUITE

    def ends(row: Mapping[str, Any], key: str) -> str:
        interval, plain = (row.get("intervals") or {}).get(key), QUANTITIES[key].plain
        return f"[{plain(interval['lower'])}, {plain(interval['upper'])}]" if interval else ""

    def counted(number: int, what: str) -> str:
        return f"{number:,} {what}{'' if number == 1 else 's'}"

    count, event = int(found["tokens"]), found["event"]
    documents = found["documents"]
    title = f"{found['corpus']}: {counted(count, 'prediction')}"
    if documents != count:
        title += f" in {counted(documents, 'document')}"
    table = Table(show_edge=False, title=escape(title), title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for key in dict.fromkeys(("accuracy", "mean_confidence", "signed_gap", *SUITE, "entropy_rate")):
        if found.get(key) is not None:
            quantity = QUANTITIES[key]
            unit = quantity.unit_of(event)
            name = f"{quantity.name}, {unit}" if unit.startswith("nats") else quantity.name
            table.add_row(name, quantity.plain(found[key]), ends(found, key))
    print_table(table)
    if not (groups := found.get("groups")):
        return
    print()
    table = Table(show_edge=False)
    table.add_column("group", overflow="fold")
    table.add_column("predictions", justify="right")
    for key in GROUP_COLUMNS:
        table.add_column(QUANTITIES[key].name, justify="right")
    for row in groups:
        cells = [
            f"{QUANTITIES[key].plain(row[key])} {ends(row, key)}".strip() for key in GROUP_COLUMNS
        ]
        table.add_row(escape(row["label"]), f"{int(row['tokens']):,}", *cells)
    print_table(table)
