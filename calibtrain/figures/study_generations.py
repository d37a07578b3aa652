"""Figures of what the generations of a study's arms show: a line or mark for each setting.

Each is the mean over seeds of a figure in the arms' analysis/*.json, with Student's interval.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.against_axis import x_axis
from calibtrain.figures.display import plural
from calibtrain.figures.generations import memory_panel
from calibtrain.figures.grouping import Comparison, Group
from calibtrain.figures.panels import (
    Figure,
    Key,
    Panel,
    faint_line,
    interval_bars,
    line,
    plot,
    told,
    zero,
)
from calibtrain.metrics.quantities import number
from calibtrain.runs.analysis_records import AnalysisRecord, FigureRecord
from calibtrain.runs.seeds import mean_and_half_width

_WIDTH = 0.5
"""The part of a category's place over which the marks of its settings are spread."""


@dataclass(frozen=True)
class _Seeds:
    """The records of one kind of a group's seeds, measured by one protocol on the same text."""

    group: Group
    records: tuple[Any, ...]


def study_generations(comparison: Comparison) -> list[Figure]:
    """Returns the figures for which any arm holds an analysis, one per corpus and split."""
    figures = []
    kinds: dict[str, Callable[[Sequence[_Seeds], Comparison], Figure]] = {
        "entropy": _entropy,
        "memory": _memory,
        "typicality": _typicality,
    }
    for kind, draw in kinds.items():
        for number_of, (place, found, apart) in enumerate(_by_text(comparison, kind)):
            figure = draw(found, comparison)
            several = f"-{number_of}" if number_of else ""
            left = (
                f" {plural(apart, 'arm')} measured by another protocol left out." if apart else ""
            )
            most = max(len(each.records) for each in found)
            seeds = " Means over seeds, with 95 % intervals where bars are." if most > 1 else ""
            figures.append(
                replace(
                    figure,
                    anchor=f"{figure.anchor}{several}",
                    title=f"{figure.title}: {place}",
                    caption=f"{figure.caption}{seeds}{left}",
                )
            )
    return figures


def _by_text(comparison: Comparison, kind: str) -> list[tuple[str, list[_Seeds], int]]:
    """Returns corpus and split, the groups that were measured on it by its commonest protocol, and
    how many records of other protocols there are."""
    held = [
        (group, record)
        for group in comparison.groups
        for arm in group.arms
        if arm.run is not None
        for record in getattr(arm.run.analyses, kind)
    ]
    found = []
    for place in dict.fromkeys(map(_place, (record for _, record in held))):
        here = [(group, record) for group, record in held if _place(record) == place]
        ((protocol, count),) = Counter(_protocol(record) for _, record in here).most_common(1)
        own = [
            _Seeds(
                group,
                tuple(r for g, r in here if g is group and _protocol(r) == protocol),
            )
            for group in comparison.groups
        ]
        found.append((place, [each for each in own if each.records], len(here) - count))
    return found


def _place(record: AnalysisRecord) -> str:
    head = "" if record.head is None else f", {record.head}"
    return f"{record.corpus}, {record.split}{head}"


def _protocol(record: AnalysisRecord) -> tuple[Any, ...]:
    return tuple(sorted(record.protocol.items(), key=lambda item: item[0]))


def _entropy(found: Sequence[_Seeds], comparison: Comparison) -> Figure:
    """Returns the entropy of generations by position, and its excess against the axis."""
    traces = []
    for each in found:
        curves = [
            [
                ((bin.start + bin.stop) / 2, bin.common_bits_per_byte)
                for row in record.rows
                if row.name == "ancestral"
                for bin in row.positions
            ]
            for record in each.records
        ]
        traces += _curves(each.group, curves, "byte {:.0f}")
    excess = [(each.group, _excess(record)) for each in found for record in each.records]
    return Figure(
        anchor="entropy-by-position",
        title="Entropy while text is generated",
        caption="First, the entropy of generations against the position after the prefix, over "
        "texts that reach the last position; then how far the entropy rate of generations is above "
        "the cross entropy of the text that they replace: 0 for a calibrated model.",
        panels=(
            Panel(
                "Entropy of generations",
                plot(
                    traces,
                    x={"title": "bytes after the prefix", "rangemode": "tozero"},
                    y={"title": "bits/byte"},
                ),
            ),
            Panel(
                "Entropy rate less cross entropy of text",
                plot(
                    [
                        trace
                        for each in found
                        for trace in _mark(
                            each.group,
                            each.group.x,
                            [figure for group, figure in excess if group is each.group],
                        )
                    ],
                    x=x_axis(comparison),
                    y={"title": "bits/byte"},
                    shapes=[zero()],
                ),
            ),
        ),
        keys=_keys(found),
    )


def _excess(record: Any) -> FigureRecord | None:
    return next((r.excess_bits_per_byte for r in record.rows if r.name == "ancestral"), None)


def _memory(found: Sequence[_Seeds], comparison: Comparison) -> Figure:
    """Returns the bound on memory against the bytes that are seen."""
    traces = []
    for each in found:
        size = sum(record.bytes_per_token for record in each.records) / len(each.records)
        curves = [
            [(row.tokens * size, row.bits_per_byte) for row in record.rows]
            for record in each.records
        ]
        traces += _curves(each.group, curves, "{:.0f} bytes")
    return Figure(
        anchor="memory-bound",
        title="How far back generations reach",
        caption="What is lost where only the last tokens are seen, on the model's own generations, "
        "against the mean number of bytes of so many tokens: an upper bound on what the text "
        "further back still says of the next token.",
        panels=(memory_panel(traces, "bytes"),),
        keys=_keys(found),
    )


def _typicality(found: Sequence[_Seeds], comparison: Comparison) -> Figure:
    """Returns information minus entropy of each kind of text."""
    names = list(dict.fromkeys(r.name for each in found for rec in each.records for r in rec.rows))
    traces = []
    for number_of, each in enumerate(found):
        shift = _WIDTH * ((number_of + 0.5) / len(found) - 0.5)
        for place, name in enumerate(names):
            figures = [
                row.deviation for record in each.records for row in record.rows if row.name == name
            ]
            traces += _mark(each.group, place + shift, figures, name)
    return Figure(
        anchor="typicality",
        title="How typical text is",
        caption="Information minus entropy under the model. At 0 a text is as probable as the "
        "model expects its own to be; below, it is more probable.",
        panels=(
            Panel(
                "Information minus entropy",
                plot(
                    traces,
                    x={
                        "title": "text",
                        "tickvals": list(range(len(names))),
                        "ticktext": names,
                        "range": [-0.5, len(names) - 0.5],
                    },
                    y={"title": "bits/byte"},
                    shapes=[zero()],
                ),
                height=320,
                full=True,
            ),
        ),
        keys=_keys(found),
    )


def _curves(
    group: Group, seeds: Sequence[Sequence[tuple[float, FigureRecord | None]]], place: str
) -> list[go.Scatter]:
    """Returns the mean over seeds, with the single seeds behind it."""
    points = []
    for column in zip(*seeds, strict=True):
        values = [each.estimate for _, each in column if each is not None]
        x = math.fsum(x for x, _ in column) / len(column)
        if len(values) == len(column):
            mean, half = mean_and_half_width(values)
            points.append((x, mean, f"{group.label}<br>{place.format(x)}<br>{_said(mean, half)}"))
    own = [line(points, colour=group.colour, group=group.label, dash=group.dash)]
    if len(seeds) == 1:
        return own
    behind = [
        faint_line(
            [(x, each and each.estimate) for x, each in seed],
            colour=group.colour,
            group=group.label,
        )
        for seed in seeds
    ]
    return [*behind, *own]


def _mark(
    group: Group, x: Any, seeds: Iterable[FigureRecord | None], name: str = ""
) -> list[go.Scatter]:
    """Returns the mean over seeds as a mark with its interval; nothing where it is not known.

    A single seed has the interval of its own documents.
    """
    figures = [each for each in seeds if each is not None]
    if not figures:
        return []
    mean, half = mean_and_half_width([each.estimate for each in figures])
    ends = None if half is None else (mean - half, mean + half)
    (only, *more) = figures
    if not more and only.lower is not None and only.upper is not None:
        ends = only.lower, only.upper
    text = "<br>".join(filter(None, (group.label, name, _said(mean, half))))
    look: dict[str, Any] = {"mode": "markers", "legendgroup": group.label, "name": "value"}
    mark = go.Scatter(**told([(x, mean, text)]), marker={"color": group.colour, "size": 9}, **look)
    return [interval_bars([(x, ends)], colour=group.colour, group=group.label), mark]


def _said(mean: float, half: float | None) -> str:
    return f"{number(mean, 3)}{'' if half is None else f' ± {number(half, 3)}'} bits/byte"


def _keys(found: Sequence[_Seeds]) -> tuple[Key, ...]:
    return tuple(Key(each.group.label, each.group.colour, each.group.dash) for each in found)
