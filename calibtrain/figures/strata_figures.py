"""Figures of ECE and signed gap by group of a stratum, with interval bars."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.calibration import Line
from calibtrain.figures.display import plain
from calibtrain.figures.panels import (
    Figure,
    Key,
    Panel,
    around_zero,
    faint_line,
    interval_bars,
    line,
    plot,
    sides,
    small,
    told,
    zero,
)
from calibtrain.figures.strata import (
    CUTS,
    Stratum,
    has_reference,
    labels_of,
    row_of,
    rows_in,
)
from calibtrain.figures.style import OVER, UNDER
from calibtrain.metrics.quantities import QUANTITIES

_SIDES = dict.fromkeys(("signed_gap", "excess_gap"), ("over-confident", "under-confident"))
_SIDES["gap"] = ("too much probability", "too little")
"""The figures around zero, and the words for their two sides."""
LONGEST = 26
"""Letters of a group's name that an axis shows; the table shows the whole name."""
_ROW = 22


def strata_figures(
    lines: Sequence[Line], keys: Sequence[Key] = (), event: str = "token"
) -> list[Figure]:
    """Returns a figure for each stratum of an event that an evaluation of the lines has.

    Args:
        lines: one line for a run, or one per combination of settings; each has evaluations.
        keys: keys of the lines, where there are several.
        event: the event of the evaluations.
    """
    figures = []
    for stratum in CUTS:
        known = [each for each in lines if any(rows_in(e, stratum) for e in each.evaluations)]
        found = [e for each in known for e in each.evaluations]
        drawable = not stratum.by_outcome or has_reference(found, stratum)
        if known and drawable and (event == "word") == (stratum.event == "word"):
            figures.append(strata_figure(stratum, known, keys))
    return figures


def strata_figure(stratum: Stratum, lines: Sequence[Line], keys: Sequence[Key] = ()) -> Figure:
    """Returns the figure of every group of one stratum, with a panel for each of its figures."""
    evaluations = [e for each in lines for e in each.evaluations]
    labels = labels_of(evaluations, stratum)
    seeds = max(len(each.evaluations) for each in lines)
    bars = (
        " Bars are 95 % intervals over documents."
        if seeds == 1
        else f" {'Thin lines' if stratum.ordered else 'Faint points'} are single seeds; intervals "
        "over seeds are in the table."
    )
    known = {key for e in evaluations for row in rows_in(e, stratum) for key in row.numbers}
    panels = [_panel(stratum, lines, labels, key) for key in stratum.keys if key in known]
    return Figure(
        anchor=stratum.anchor,
        title=stratum.title,
        caption=f"{stratum.caption}{bars}",
        panels=tuple(panels if panels[1:] else (replace(panels[0], full=True),)),
        keys=tuple(keys),
    )


def _panel(stratum: Stratum, lines: Sequence[Line], labels: Sequence[str], key: str) -> Panel:
    name, shows = QUANTITIES[key].name, QUANTITIES[key].show
    traces: list[Any] = []
    reach: list[float | None] = []
    for index, each in enumerate(lines):
        shift = _apart(stratum, len(lines)) * (index - (len(lines) - 1) / 2)
        xs = [place + shift for place in range(1, len(labels) + 1)]
        rows = [[row_of(e, stratum, label) for label in labels] for e in each.evaluations]
        seeds = [[row.numbers.get(key) if row else None for row in seed] for seed in rows]
        means = [_mean(values) for values in zip(*seeds, strict=True)]
        intervals = [row.interval(key) if row and len(rows) == 1 else None for row in rows[0]]
        ends = [(found.lower, found.upper) if found else None for found in intervals]
        reach += means + [end for pair in ends if pair for end in pair]
        look = {"colour": each.colour, "group": each.name}
        if len(seeds) > 1:
            faint = [faint_line(zip(xs, seed, strict=True), **look) for seed in seeds]
            traces += [_joined(trace, stratum) for trace in faint]
            reach += [value for seed in seeds for value in seed]
        if any(ends):
            traces.append(interval_bars(zip(xs, ends, strict=True), **look))
        points = []
        for x, label, mean, interval in zip(xs, labels, means, intervals, strict=True):
            said = f"{each.name}<br>{stratum.group} {plain(label)}<br>{name} {shows(mean)}"
            if interval:
                said += f"<br>[{shows(interval.lower)}, {shows(interval.upper)}], 95 %"
            points.append((x, mean, said))
        traces.append(_joined(line(points, dash=each.dash, marks=True, **look), stratum))
        if other := stratum.beside.get(key):
            wanted = [
                _mean([row.numbers.get(other) if row else None for row in c])
                for c in zip(*rows, strict=True)
            ]
            reach += wanted
            traces.append(_beside(zip(xs, wanted, strict=True), each, other))
    return _set_out(stratum, labels, key, traces, reach)


def _beside(points: Iterable[tuple[float, float | None]], each: Line, key: str) -> go.Scatter:
    """Returns the hollow diamonds of what a figure is drawn beside."""
    name, show = QUANTITIES[key].name, QUANTITIES[key].show
    marker = {"color": each.colour, "size": 10, "symbol": "diamond-open", "line": {"width": 1.5}}
    return go.Scatter(
        **told((x, y, f"{each.name}<br>{name} {show(y)}") for x, y in points),
        name=name,
        mode="markers",
        marker=marker,
        legendgroup=each.name,
    )


def _apart(stratum: Stratum, lines: int) -> float:
    """Returns the distance between lines, so that their bars do not overlap."""
    return min(0.09 if stratum.ordered else 0.22, 0.7 / lines)


def _set_out(
    stratum: Stratum, labels: Sequence[str], key: str, traces: list[Any], reach: list[float | None]
) -> Panel:
    """Returns a panel with ordered groups along the x axis, or unordered ones along the y axis."""
    words, quantity = _SIDES.get(key), QUANTITIES[key]
    value: dict[str, Any] = {"title": f"{quantity.name} ({quantity.unit})", "rangemode": "tozero"}
    if words:
        value = {"title": quantity.unit_in_words(), "range": around_zero(reach)}
    short = [plain(name if len(name) <= LONGEST else name[: LONGEST - 1] + "…") for name in labels]
    bands = _bands(stratum.name, short)
    groups = {
        "title": stratum.axis,
        "tickvals": list(range(1, len(labels) + 1)),
        "ticktext": bands,
        "range": [0.5, len(labels) + 0.5],
    }
    name = f"{quantity.name} by {stratum.group}"
    if stratum.ordered:
        marks = {"shapes": [zero()], "annotations": sides(*words)} if words else {}
        return Panel(name, plot(traces, x=groups, y=value, **marks))
    for trace in traces:
        trace.x, trace.y = trace.y, trace.x
        if trace.marker.symbol == "line-ew-open":
            trace.marker.symbol = "line-ns-open"
    shape = {**zero(), "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1}
    drawn = plot(
        traces,
        x=value,
        y={**groups, "range": [len(labels) + 0.5, 0.5]},
        shapes=[shape] if words else [],
        annotations=_sides_across() if words else [],
        margin={"l": 8, "r": 14, "t": 28, "b": 8},
    )
    lines = len({trace.legendgroup for trace in traces})
    return Panel(name, drawn, height=100 + (_ROW + 5 * min(lines, 6)) * len(labels))


def _bands(name: str, labels: Sequence[str]) -> list[str]:
    """Returns the labels of bands in two lines, the unit below, so that they fit side by side."""
    if name == "groups":
        return list(labels)
    return [
        label.replace(" and more", "<br>and more").replace("below ", "below<br>")
        if " and more" in label or label.startswith("below ")
        else label.replace(" ", "<br>")
        for label in labels
    ]


def _sides_across() -> list[Mapping[str, Any]]:
    shared = {"xref": "paper", "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False}
    over = {"x": 1, "xanchor": "right", "text": "over-confident →", "font": small(OVER)}
    under = {"x": 0, "xanchor": "left", "text": "← under-confident", "font": small(UNDER)}
    return [{**shared, **over}, {**shared, **under}]


def _joined(trace: go.Scatter, stratum: Stratum) -> go.Scatter:
    """Returns the trace with lines, or with points only where the groups have no order."""
    if not stratum.ordered:
        trace.mode = "markers"
    return trace


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
