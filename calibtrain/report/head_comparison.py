"""Temperature heads of a run side by side: the file of `temperature compare`, table and figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from calibtrain.report.cells import note, num, row_head, table, th
from calibtrain.report.display import count, duration, number
from calibtrain.report.figures import SOFT, Figure, Panel, interval_bars, plot, zero
from calibtrain.report.json_record import Record, document
from calibtrain.report.signatures import table_of

FIGURES = (
    ("nll", "NLL", "nats/token", 4, False),
    ("bits_per_byte", "Bits per byte", "bits/byte", 4, False),
    ("ece", "ECE", "0 to 1", 4, False),
    ("smooth_calibration_error", "SmoothECE", "0 to 1", 4, False),
    ("signed_gap", "Signed gap", "conf. − accuracy", 4, True),
)
"""Key, name, unit, decimals, whether signed."""


@dataclass(frozen=True)
class Difference:
    """Of a figure to that of no head, with its 95 % interval over documents."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class HeadRow:
    """A head on a corpus; `none` is the model as it is, which differs from nothing.

    Files of earlier versions have no signatures.
    """

    head: str
    parameters: int
    seconds: float
    values: dict[str, float]
    differences: dict[str, Difference]
    signatures: dict[str, str]


@dataclass(frozen=True)
class HeadTable:
    """All heads on one corpus."""

    name: str
    in_domain: bool
    rows: tuple[HeadRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeadComparison:
    """What `temperature compare` wrote last.

    Attributes:
        fitted_on: corpus and split.
        step: of the checkpoint.
        corpora: the tables.
        raw: the file.
    """

    fitted_on: str
    step: int
    corpora: tuple[HeadTable, ...]
    raw: dict[str, Any]


def read_heads(folder: Path) -> HeadComparison | None:
    """The comparison in a run's folder; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = folder / "temperature" / "comparison.json"
    if not path.is_file():
        return None
    record = document(path)
    on = record.record("fitted_on")
    return HeadComparison(
        fitted_on=f"{on.text('corpus')}-{on.text('split')}",
        step=record.record("checkpoint").whole("step"),
        corpora=tuple(
            HeadTable(
                name=f"{corpus.text('corpus')}-{corpus.text('split')}",
                in_domain=corpus.flag("in_domain"),
                rows=tuple(_row(row) for row in corpus.records("rows")),
                notes=tuple(map(str, corpus.data.get("notes") or ())),
            )
            for corpus in record.records("corpora")
        ),
        raw=record.data,
    )


def _row(record: Record) -> HeadRow:
    found, made = record.maybe_record("differences"), record.maybe_record("signatures")
    apart = {name: found.record(name) for name in found.data}
    return HeadRow(
        head=record.text("head"),
        parameters=record.whole("parameters"),
        seconds=record.number("seconds"),
        values={key: record.number(key) for key, *_ in FIGURES},
        differences={
            name: Difference(one.number("difference"), one.number("lower"), one.number("upper"))
            for name, one in apart.items()
        },
        signatures={name: made.text(name) for name in made.data},
    )


def heads_section(found: HeadComparison) -> str:
    """The tables, as HTML."""
    text = (
        f"Fitted on {found.fitted_on} to the frozen model of step {found.step:,}. Brackets are "
        "95 % intervals of the difference to no head, over the same documents: where one holds 0, "
        "the text does not tell them apart. A head that lowers the ECE and raises the NLL has made "
        "the predictions worse."
    )
    signatures = {
        f"{corpus.name}: {row.head}": [row.signatures]
        for corpus in found.corpora
        for row in corpus.rows
    }
    absent = (
        "The comparison is of a version of calibtrain that wrote no signatures beside its figures."
    )
    tables = "".join(_table(each) for each in found.corpora)
    noted = (f"{each.name}: {one}" for each in found.corpora for one in each.notes)
    return tables + "".join(map(note, noted)) + note(text) + table_of(signatures, absent)


def _table(found: HeadTable) -> str:
    heads = [
        th("Head"),
        *(th(name, unit, numeric=True) for _, name, unit, *_ in FIGURES),
        th("Parameters", numeric=True),
        th("Fitted in", numeric=True),
    ]
    rows = [
        [
            row_head(row.head),
            *(_cell(row, *figure) for figure in FIGURES),
            num(row.parameters, count(row.parameters)),
            num(row.seconds, duration(row.seconds)),
        ]
        for row in found.rows
    ]
    where = "in domain" if found.in_domain else "out of domain"
    return table(f"{found.name} ({where})", heads, rows)


def _cell(row: HeadRow, key: str, name: str, unit: str, decimals: int, signed: bool) -> str:
    value, apart = row.values[key], row.differences.get(key)
    shown = number(value, decimals, signed=signed)
    if apart is None:
        return num(value, shown)
    low, high = (number(end, decimals, signed=True) for end in (apart.lower, apart.upper))
    title = f"{value!r}; less no head {apart.value!r}, 95 % from {apart.lower!r} to {apart.upper!r}"
    return (
        f'<td class="num" data-value="{value!r}" data-lower="{apart.lower!r}" '
        f'data-upper="{apart.upper!r}" title="{escape(title)}">{escape(shown)}'
        f'<span class="half">[{escape(low)}, {escape(high)}]</span></td>'
    )


def heads_figure(found: HeadComparison) -> Figure | None:
    """Differences to no head, NLL and ECE side by side; None where nothing has a difference."""
    panels = []
    for corpus in found.corpora:
        rows = [row for row in corpus.rows if row.differences]
        if rows:
            panels.append(_panel(f"NLL: {corpus.name}", "nats/token", rows, "nll"))
            panels.append(_panel(f"ECE: {corpus.name}", "difference of ECE", rows, "ece"))
    if not panels:
        return None
    return Figure(
        anchor="heads",
        title="What each temperature head changes",
        caption="Figures with a head less those without, on the same documents, with 95 % "
        "intervals. Below 0 is better. Read both: the NLL says whether predictions became better, "
        "the ECE whether confidence fits accuracy.",
        panels=tuple(panels),
    )


def _panel(title: str, unit: str, rows: Sequence[HeadRow], key: str) -> Panel:
    names = [row.head for row in rows if key in row.differences]
    apart = [row.differences[key] for row in rows if key in row.differences]
    marks = go.Scatter(
        x=names,
        y=[each.value for each in apart],
        mode="markers",
        marker={"color": "var(--cat-0)", "size": 9},
        hovertext=[
            f"{name}<br>{number(each.value, 4, signed=True)} "
            f"[{number(each.lower, 4, signed=True)}, {number(each.upper, 4, signed=True)}]"
            for name, each in zip(names, apart, strict=True)
        ],
        hoverinfo="text",
    )
    ends = [(each.lower, each.upper) for each in apart]
    bars = interval_bars(names, ends, colour=SOFT, group="difference")
    return Panel(
        title,
        plot([bars, marks], x={"title": "head"}, y={"title": unit}, shapes=[zero()]),
    )
