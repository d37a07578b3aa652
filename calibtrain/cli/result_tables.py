"""The tables that commands print on standard output."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from calibtrain.metrics.quantities import QUANTITIES

RESULT_COLUMNS = (
    "bits_per_byte",
    "ece",
    "signed_gap",
    "accuracy",
    "mean_confidence",
    "entropy_rate",
    "entropy_bits_per_byte",
    "bytes",
)
VOCABULARY_COLUMNS = ("full_calibration_error", "classwise_calibration_error")
STUDY_COLUMNS = ("bits_per_byte", "ece", "signed_gap", "entropy_bits_per_byte")
DOMAIN_COLUMNS = RESULT_COLUMNS[:5]


def human_bytes(count: float) -> str:
    """Returns a count of bytes in binary units: 1536 gives "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def add_columns(table: Table, keys: Sequence[str], event: str = "token") -> None:
    """Adds a column for each figure, headed by its name and unit."""
    for key in keys:
        heading = QUANTITIES[key].heading(event)
        table.add_column(heading, justify="right", overflow="fold")


def results_table(
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    first: str,
    event: str = "token",
    columns: Sequence[str] = RESULT_COLUMNS,
) -> Table:
    """Returns the table of results of one event space, one result per row."""
    table = Table(show_edge=False)
    table.add_column(first)
    add_columns(table, columns, event)
    for name, figures in rows:
        cells = [QUANTITIES[key].plain(figures.get(key)) for key in columns]
        table.add_row(escape(name), *cells)
    return table


def domains_table(found: Mapping[str, Any]) -> Table:
    """Returns the table of a run on several corpora, raw and with its temperature.

    Each figure is followed by its 95 % interval.
    """
    fitted = found["temperature"]
    title = (
        f"T = {fitted['value']:.4f}, fitted on {fitted['fitted_on']}: nll "
        f"{fitted['nll_before']:.4f} -> {fitted['nll_after']:.4f} "
        f"{QUANTITIES['nll'].unit_in_words()}"
    )
    table = Table(show_edge=False, title=title, title_justify="left")
    table.add_column("corpus")
    table.add_column("T", justify="right")
    add_columns(table, DOMAIN_COLUMNS)
    for row in found["evaluations"]:
        cells = []
        for key in DOMAIN_COLUMNS:
            plain, interval = QUANTITIES[key].plain, row["intervals"].get(key)
            ends = f" [{plain(interval['lower'])}, {plain(interval['upper'])}]" if interval else ""
            cells.append(plain(row[key]) + ends)
        name = f"{row['corpus']}-{row['split']}"
        table.add_row(escape(name), f"{row['temperature']:.4f}", *cells)
    return table


def study_tables(result: Mapping[str, Any]) -> list[Table]:
    """Returns a table for each kind of event: means over seeds ± half of 95 % intervals.

    Bytes and words, which compare vocabularies, come before tokens.
    """
    events = {
        name: each.get("event", "token")
        for arm in result["arms"]
        for name, each in arm["evaluations"].items()
    }
    names = dict.fromkeys(row["evaluation"] for row in result["summary"])
    shown = [name for name in names if events[name] != "token"]
    of_tokens = [name for name in names if events[name] == "token"]
    tests = [name for name in of_tokens if name.endswith("-test")]
    shown += (tests or of_tokens)[:1]
    return [_study_table(result, name, events[name]) for name in shown]


def _study_table(result: Mapping[str, Any], main: str, event: str) -> Table:
    table = Table(show_edge=False, title=f"{result['title']} ({main})", title_justify="left")
    table.add_column("arm")
    table.add_column("seeds", justify="right")
    add_columns(table, STUDY_COLUMNS, event)
    for row in result["summary"]:
        if row["evaluation"] != main:
            continue
        settings = ", ".join(
            f"{key.rpartition('.')[2]}={value}" for key, value in row["settings"].items()
        )
        cells = []
        for key in STUDY_COLUMNS:
            quantity, half = QUANTITIES[key], row["half_width"].get(key)
            width = f" ±{quantity.plain_half(half)}" if half else ""
            cells.append(quantity.plain(row["mean"].get(key)) + width)
        table.add_row(escape(settings) or "base", str(row["seeds"]), *cells)
    return table


def print_table(table: Table) -> None:
    """Prints a result on standard output; lines are folded only on a terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=Console(width=10_000).measure(table).maximum)
    console.print(table)


def compilation_table(found: Mapping[str, Any]) -> Table:
    """Returns the table of `compile`: one column per program, figures per device."""
    mesh = " x ".join(f"{name} {count}" for name, count in found["mesh"].items())
    way = f"{found['compute']}, {found['layers']} layers, remat {found['remat']}"
    table = Table(
        title=f"{found['devices']} devices ({found['slices']} x {found['topology']}): {mesh}",
        caption=f"attention {found['attention'] or 'none'}, {way}",
    )
    table.add_column("a device")
    columns = []
    for name in ("training", "evaluation"):
        table.add_column(name, justify="right")
        columns.append(_compiled_program(found[name]))
    for label in dict.fromkeys(label for column in columns for label in column):
        table.add_row(label, *(column.get(label, "0") for column in columns))
    if found["not_counted"]:
        table.add_row("not counted", found["not_counted"], "")
    return table


def _compiled_program(program: Mapping[str, Any]) -> dict[str, str]:
    """Returns the labels and figures of one column."""
    memory, flops = program["memory"], program["flops"]
    return {
        "rows, all devices": f"{program['rows']:,}",
        "arguments": human_bytes(memory["arguments"]),
        "temporaries": human_bytes(memory["temporaries"]),
        "outputs, not donated": human_bytes(memory["outputs"] - memory["aliased"]),
        "optimizer, held": human_bytes(memory["held"]),
        "memory needed": human_bytes(memory["needed"]),
        "memory usable": human_bytes(memory["usable"]),
        "fits": "yes" if program["fits"] else "no",
        "FLOPs, compiled": "unknown" if flops["compiler"] is None else f"{flops['compiler']:.3g}",
        "FLOPs, analytic": f"{flops['analytic']:.3g}",
        **{kind: human_bytes(size) for kind, size in program["collectives"].items()},
    }
