"""The command `runs`: every run below a folder, read from its records without JAX."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from calibtrain.cli.completion import complete_folder
from calibtrain.cli.evaluating import Events
from calibtrain.cli.options import AsJson
from calibtrain.errors import UserError
from calibtrain.process.output import print_json, say
from calibtrain.storage.places import place

DEFAULT = "runs"
FIGURES = ("bits_per_byte", "ece", "signed_gap")


def runs(
    folder: Annotated[
        str, typer.Argument(help="A folder, or gs://BUCKET/PATH.", autocompletion=complete_folder)
    ] = DEFAULT,
    events: Annotated[Events, typer.Option(help="Events whose figures are shown.")] = Events.token,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, a row per run.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the runs and arms of studies in a folder: how far they are, and their latest figures.

    Figures are those of the final evaluation of the test split. A run whose process is gone says
    so; the command that began it goes on with it.

    Example: calibtrain runs runs/quickstart --csv
    """
    from calibtrain.runs.listing import list_runs

    if as_csv and as_json:
        raise UserError("--csv, --json: give one of them")
    root = place(folder)
    missing = folder == DEFAULT and not root.exists()
    rows = [] if missing else [_row(entry) for entry in list_runs(root, events.value)]
    if as_json:
        print_json({"folder": str(root), "runs": rows})
    elif as_csv:
        print(_csv(rows), end="")
    elif rows:
        _print(root, events.value, rows)
    if not rows:
        say(f"{root}: holds no runs yet; to train one: calibtrain train tiny")


def _row(entry: Any) -> dict[str, Any]:
    """Returns an entry as JSON and CSV say it."""
    evaluation = entry.evaluation
    figures = dict.fromkeys(FIGURES) if evaluation is None else evaluation.numbers
    return {
        "run": str(entry.path),
        "state": entry.state,
        "alive": entry.alive,
        "step": entry.step,
        "steps": entry.steps,
        "vocab_size": entry.vocab_size,
        "evaluation": evaluation and f"{evaluation.corpus}-{evaluation.split}",
        "evaluated_step": evaluation and evaluation.step,
        "event": evaluation and evaluation.event,
        "temperature": evaluation and (evaluation.temperature or 1.0),
        **{key: figures.get(key) for key in FIGURES},
        "when": entry.changed and entry.changed.isoformat(timespec="seconds"),
        "note": entry.note or None,
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    written = io.StringIO()
    if rows:
        table = csv.DictWriter(written, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return written.getvalue()


def _print(root: Path, events: str, rows: Sequence[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from calibtrain.cli.result_tables import add_columns, print_table
    from calibtrain.metrics.quantities import NOTHING, QUANTITIES

    table = Table(show_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("state")
    table.add_column("steps", justify="right")
    table.add_column("vocab", justify="right")
    table.add_column("evaluation", overflow="fold")
    table.add_column("events")
    add_columns(table, FIGURES, events)
    table.add_column("when")
    for row in rows:
        path = Path(row["run"])
        name = path.relative_to(root) if path != root and path.is_relative_to(root) else path
        steps = NOTHING if row["step"] is None else f"{row['step']:,} of {row['steps']:,}"
        gone = " (process gone)" if row["state"] == "running" and not row["alive"] else ""
        table.add_row(
            escape(str(name)),
            row["state"] + gone,
            steps,
            NOTHING if row["vocab_size"] is None else f"{row['vocab_size']:,}",
            escape(row["evaluation"] or NOTHING),
            row["event"] or NOTHING,
            *(QUANTITIES[key].plain(row[key]) for key in FIGURES),
            (row["when"] or NOTHING)[:16].replace("T", " "),
        )
    print_table(table)
    for row in rows:
        if row["note"]:
            say(f"{row['run']}: {row['state']}: {row['note']}")
