"""Figures of what generations show: entropy by position, the bound on memory, and typicality."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.display import headed, plural
from calibtrain.figures.panels import (
    Figure,
    Key,
    Panel,
    Point,
    exact_level,
    interval_bars,
    line,
    plot,
    told,
    untold,
    zero,
)
from calibtrain.metrics.quantities import number
from calibtrain.runs.analysis_records import (
    Analyses,
    EntropyRecord,
    FigureRecord,
    MemoryRecord,
    MemoryRow,
    TypicalityRecord,
)

_COLOURS = 7  # categorical ones of the style
_WORDS = {
    "text": "text: cross entropy",
    "ancestral": "generations: entropy",
    "temperature": "with a fitted temperature",
    "top-k": "the candidates alone",
    "look-ahead": "with a fitted look-ahead",
}


def analysis_figures(found: Analyses) -> list[Figure]:
    """Returns a figure of each analysis of a run; none where there is no analysis."""
    figures = []
    kinds: tuple[tuple[Callable[[Any], Figure], Sequence[Any]], ...] = (
        (entropy_figure, found.entropy),
        (lambda record: memory_figure([record]), found.memory),
        (typicality_figure, found.typicality),
    )
    for draw, records in kinds:
        for number_of, record in enumerate(records):
            figure = draw(record)
            several = f"-{number_of}" if number_of else ""
            figures.append(
                replace(
                    figure,
                    anchor=f"{figure.anchor}{several}",
                    title=f"{figure.title}: {record.corpus}, {record.split}",
                    caption=f"{figure.caption} {plural(record.documents, 'document')}, step "
                    f"{record.step:,}{headed(record.head)}.",
                )
            )
    return figures


def entropy_figure(record: EntropyRecord) -> Figure:
    """Returns entropy and loss against the position, over the same texts at every position."""
    rows = [row for row in record.rows if row.common_texts]
    traces: list[go.Scatter] = []
    keys = []
    for index, row in enumerate(rows):
        name, colour = _WORDS.get(row.name, row.name), f"var(--cat-{index % _COLOURS})"
        found = [
            ((each.start + each.stop) / 2, each.common_bits_per_byte)
            for each in row.positions
            if each.common_bits_per_byte is not None
        ]
        traces += _banded(found, name, colour, "byte {:.0f}")
        keys.append(Key(name, colour))
    known = record.source_bits_per_byte
    kept = ", ".join(f"{_WORDS.get(row.name, row.name)} {row.common_texts}" for row in rows)
    return Figure(
        anchor="entropy-by-position",
        title="Entropy while text is generated",
        caption="Bits per byte against the position after the prefix, over texts that reach the "
        f"last position (the same in every bin; {kept}), with 95 % intervals over documents. A "
        "calibrated model's generations have the entropy that text has as its cross entropy.",
        panels=(
            Panel(
                "Entropy by position",
                plot(
                    traces,
                    x={"title": "bytes after the prefix", "rangemode": "tozero"},
                    y={"title": "bits/byte"},
                    shapes=[] if known is None else [exact_level(known)],
                ),
                height=360,
                full=True,
            ),
        ),
        keys=tuple(keys),
    )


def memory_figure(records: Sequence[MemoryRecord]) -> Figure:
    """Returns the bound on memory against the number of tokens seen, a line per record."""
    traces: list[go.Scatter] = []
    keys = []
    lines: list[tuple[str, Sequence[MemoryRow]]] = []
    for record in records:
        name = f"{record.model}, V = {record.vocab_size:,}"
        if any(name == other for other, _ in lines):
            name = f"{name}, {record.run}"
        lines.append((name, record.rows))
        if record.limited is not None:
            lines.append((f"{name}: trained on {record.limited.context}", record.limited.rows))
    for index, (name, rows) in enumerate(lines):
        colour = f"var(--cat-{index % _COLOURS})"
        found = [(row.tokens, row.bits_per_byte) for row in rows if row.bits_per_byte is not None]
        traces += _banded(found, name, colour, "{:.0f} tokens")
        keys.append(Key(name, colour))
    return Figure(
        anchor="memory-bound",
        title="How far back generations reach",
        caption="What is lost where only the last tokens are seen, on the model's own generations: "
        "an upper bound on what the tokens further back still say of the next one. 95 % intervals "
        "over texts.",
        panels=(memory_panel(traces, "tokens"),),
        keys=tuple(keys),
    )


def memory_panel(traces: Sequence[go.Scatter], unit: str) -> Panel:
    """Returns what is lost against how much is seen, in a unit (tokens or bytes)."""
    return Panel(
        f"Memory beyond the last {unit}",
        plot(
            traces,
            x={"title": f"{unit} seen", "type": "log", "dtick": "0.30103"},
            y={"title": "bits/byte", "rangemode": "tozero"},
        ),
        height=360,
        full=True,
    )


def typicality_figure(record: TypicalityRecord) -> Figure:
    """Returns information minus entropy of each kind of text."""
    known = [(row.name, row.deviation) for row in record.rows if row.deviation is not None]
    marks = go.Scatter(
        **told((name, each.estimate, f"{name}<br>{_said(each)}") for name, each in known),
        mode="markers",
        marker={"color": "var(--cat-0)", "size": 9},
    )
    bars = interval_bars(
        [(name, _ends(each)) for name, each in known], colour="var(--cat-0)", group="deviation"
    )
    return Figure(
        anchor="typicality",
        title="How typical text is",
        caption="Information minus entropy under the model, with 95 % intervals over documents. At "
        "0 a text is as probable as the model expects its own to be; below, it is more probable.",
        panels=(
            Panel(
                "Information minus entropy",
                plot(
                    [bars, marks],
                    x={"title": "text"},
                    y={"title": "bits/byte"},
                    shapes=[zero()],
                ),
                height=320,
                full=True,
            ),
        ),
    )


def _banded(
    found: Sequence[tuple[float, FigureRecord]], name: str, colour: str, place: str
) -> list[go.Scatter]:
    """Returns a line over the band of its intervals."""
    ends = [(x, end) for x, each in found if (end := _ends(each)) is not None]
    around = [(x, low) for x, (low, _) in ends] + [(x, high) for x, (_, high) in reversed(ends)]
    band = go.Scatter(
        **untold(around),
        name="95 % interval",
        mode="none",
        fill="toself",
        fillcolor=colour,
        opacity=0.15,
        legendgroup=name,
    )
    points: list[Point] = [
        (x, each.estimate, f"{name}<br>{place.format(x)}<br>{_said(each)}") for x, each in found
    ]
    return [band, line(points, colour=colour, group=name)]


def _ends(figure: FigureRecord) -> tuple[float, float] | None:
    if figure.lower is None or figure.upper is None:
        return None
    return figure.lower, figure.upper


def _said(figure: FigureRecord) -> str:
    text = f"{number(figure.estimate, 3)} bits/byte"
    ends = _ends(figure)
    return text if ends is None else f"{text} [{number(ends[0], 3)}, {number(ends[1], 3)}]"
