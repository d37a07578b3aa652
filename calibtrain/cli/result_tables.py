"""The tables that commands print on standard output."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

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


def results_tables(
    rows: Sequence[tuple[str, Mapping[str, Any]]], columns: Sequence[str] = RESULT_COLUMNS
) -> list[Table]:
    """Returns a table for each event space, as units differ; one evaluation per row.

    Args:
        rows: name of each evaluation, and its figures; `event`, `temperature` and `file` are shown
            where they are there.
        columns: keys of the figures.
    """
    by_event: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for name, figures in rows:
        by_event.setdefault(event_of(name, figures), []).append((name, figures))
    return [_one_event(event, found, columns) for event, found in by_event.items()]


def event_of(name: str, figures: Mapping[str, Any]) -> str:
    """Returns what was predicted, by an evaluation's figures or the end of its name."""
    last = name.rpartition("-")[2]
    return str(figures.get("event") or (last if last in ("byte", "word") else "token"))


def _one_event(
    event: str, rows: Sequence[tuple[str, Mapping[str, Any]]], columns: Sequence[str]
) -> Table:
    table = Table(show_edge=False)
    table.add_column("evaluation")
    table.add_column("events")
    tempered = any(_temperature(figures) != "1" for _, figures in rows)
    if tempered:
        table.add_column("T", justify="right")
    add_columns(table, columns, event)
    written = any(figures.get("file") for _, figures in rows)
    if written:
        table.add_column("file", overflow="fold")
    for name, figures in rows:
        cells = [QUANTITIES[key].plain(figures.get(key)) for key in columns]
        table.add_row(
            escape(name.removesuffix(f"-{event}")),
            event,
            *([escape(_temperature(figures))] if tempered else []),
            *cells,
            *([escape(str(figures.get("file") or "not kept"))] if written else []),
        )
    return table


def _temperature(figures: Mapping[str, Any]) -> str:
    """Returns the temperature of an evaluation: its value, or the name of the head that gave it."""
    temperature = figures.get("temperature")
    if isinstance(temperature, str):
        return temperature
    return "1" if temperature in (None, 1) else f"{temperature:.4f}"


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
    table.add_column("evaluation")
    table.add_column("events")
    table.add_column("T", justify="right")
    add_columns(table, DOMAIN_COLUMNS)
    table.add_column("file", overflow="fold")
    for row, file in zip(found["evaluations"], found["files"], strict=True):
        cells = []
        for key in DOMAIN_COLUMNS:
            plain, interval = QUANTITIES[key].plain, row["intervals"].get(key)
            ends = f" [{plain(interval['lower'])}, {plain(interval['upper'])}]" if interval else ""
            cells.append(plain(row[key]) + ends)
        name = f"{row['corpus']}-{row['split']}"
        temperature = _temperature(row)
        table.add_row(escape(name), row["event"], temperature, *cells, escape(file or "not kept"))
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
    """Prints a result on standard output.

    On a terminal that is too narrow for it, its columns are printed in several tables below each
    other, so that no figure is cut; a single row is printed downwards. Elsewhere lines have any
    length.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=Console(width=10_000).measure(table).maximum)
        console.print(table)
        return
    for number, part in enumerate(fitted(table, console.width)):
        if number:
            console.print()
        console.print(part)


def fitted(table: Table, width: int) -> list[Table]:
    """Returns tables of a table's columns that are at most so wide, each with the first column.

    Args:
        table: cells are texts.
        width: in cells of the terminal, of which a character may take two.
    """
    if _width(table) <= width:
        return [table]
    if table.row_count == 1:
        return [_downwards(table)]
    first, *others = table.columns
    parts: list[list[Column]] = [[]]
    for column in others:
        if parts[-1] and _width(_part(table, [first, *parts[-1], column])) > width:
            parts.append([])
        parts[-1].append(column)
    found = [_part(table, [first, *columns]) for columns in parts]
    found[0].title, found[-1].caption = table.title, table.caption
    return found


def _width(table: Table) -> int:
    return Console(width=10_000).measure(table).maximum


def _part(table: Table, columns: Sequence[Column]) -> Table:
    """Returns a table of some columns."""
    part = Table(show_edge=False, title_justify="left", caption_justify="left")
    for column in columns:
        part.add_column(column.header, justify=column.justify, overflow="fold")
    for cells in zip(*(column.cells for column in columns), strict=True):
        part.add_row(*cells)
    return part


def _downwards(table: Table) -> Table:
    """Returns a table of one row as two columns: headings and cells."""
    turned = Table(
        show_edge=False, show_header=False, title=table.title, title_justify="left", box=None
    )
    turned.add_column()
    turned.add_column(overflow="fold")
    for column in table.columns:
        turned.add_row(column.header, *column.cells)
    turned.caption = table.caption
    return turned


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
