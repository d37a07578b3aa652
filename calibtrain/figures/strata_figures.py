"""Figures of ECE and signed gap by group of a stratum, with interval bars."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.calibration import Line
from calibtrain.figures.display import shown
from calibtrain.figures.panels import (
    Figure,
    Key,
    Panel,
    faint_line,
    gap_axis,
    gap_marks,
    interval_bars,
    line,
    plot,
    small,
    told,
    zero,
)
from calibtrain.figures.strata import COMPARED, CUTS, Stratum, has_reference, labels_of, row_of
from calibtrain.figures.style import OVER, UNDER
from calibtrain.metrics.quantities import QUANTITIES

NAMES = {key: QUANTITIES[key].name for key in COMPARED}
NAMES["excess_gap"] = "Signed gap less that of a perfect model,"
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
        known = [each for each in lines if any(stratum.name in e.strata for e in each.evaluations)]
        found = [e for each in known for e in each.evaluations]
        drawable = not stratum.by_outcome or has_reference(found, stratum)
        if known and drawable and stratum.event == event:
            figures.append(strata_figure(stratum, known, keys))
    return figures


def strata_figure(stratum: Stratum, lines: Sequence[Line], keys: Sequence[Key] = ()) -> Figure:
    """Returns the figure of ECE and signed gap of every group of one stratum.

    Where groups are known only afterwards, the gap alone is drawn, beside a perfect model's.
    """
    evaluations = [e for each in lines for e in each.evaluations]
    labels = labels_of(evaluations, stratum)
    seeds = max(len(each.evaluations) for each in lines)
    bars = (
        " Bars are 95 % intervals over documents."
        if seeds == 1
        else f" {'Thin lines' if stratum.ordered else 'Faint points'} are single seeds; intervals "
        "over seeds are in the table."
    )
    drawn: Sequence[str] = COMPARED
    if stratum.by_outcome:
        rows = [row for e in evaluations for row in e.strata.get(stratum.name, ())]
        known = any(row.excess_gap is not None for row in rows)
        drawn = ("signed_gap", "excess_gap") if known else ("signed_gap",)
    panels = [_panel(stratum, lines, labels, key) for key in drawn]
    return Figure(
        anchor=stratum.anchor,
        title=stratum.title,
        caption=f"{stratum.caption}{bars}",
        panels=tuple(panels if panels[1:] else (replace(panels[0], full=True),)),
        keys=tuple(keys),
    )


def _panel(stratum: Stratum, lines: Sequence[Line], labels: Sequence[str], key: str) -> Panel:
    name = NAMES[key]
    shows = QUANTITIES["signed_gap" if key == "excess_gap" else key].show
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
            said = f"{each.name}<br>{stratum.group} {label}<br>{name} {shows(mean)}"
            if interval:
                said += f"<br>[{shows(interval.lower)}, {shows(interval.upper)}], 95 %"
            points.append((x, mean, said))
        traces.append(_joined(line(points, dash=each.dash, marks=True, **look), stratum))
        if key == "signed_gap" and has_reference(each.evaluations, stratum):
            perfect = [[row.reference_gap if row else None for row in seed] for seed in rows]
            wanted = [_mean(values) for values in zip(*perfect, strict=True)]
            reach += wanted
            traces.append(_perfect(zip(xs, wanted, strict=True), each))
    return _set_out(stratum, labels, key, traces, reach)


def _perfect(points: Iterable[tuple[float, float | None]], each: Line) -> go.Scatter:
    """Returns the hollow diamonds of what a perfect model would show."""
    told_of = [
        (x, y, f"{each.name}<br>a perfect model would show {shown('signed_gap', y)}")
        for x, y in points
    ]
    marker = {"color": each.colour, "size": 10, "symbol": "diamond-open", "line": {"width": 1.5}}
    return go.Scatter(
        **told(told_of), name="perfect model", mode="markers", marker=marker, legendgroup=each.name
    )


def _apart(stratum: Stratum, lines: int) -> float:
    """Returns the distance between lines, so that their bars do not overlap."""
    return min(0.09 if stratum.ordered else 0.22, 0.7 / lines)


def _set_out(
    stratum: Stratum, labels: Sequence[str], key: str, traces: list[Any], reach: list[float | None]
) -> Panel:
    """Returns a panel with ordered groups along the x axis, or unordered ones along the y axis."""
    gap = key in ("signed_gap", "excess_gap")
    value: dict[str, Any] = (
        gap_axis(reach) if gap else {"title": "ECE (0 to 1)", "rangemode": "tozero"}
    )
    short = [name if len(name) <= LONGEST else name[: LONGEST - 1] + "…" for name in labels]
    bands = _bands(stratum.name, short)
    groups = {
        "title": stratum.axis,
        "tickvals": list(range(1, len(labels) + 1)),
        "ticktext": bands,
        "range": [0.5, len(labels) + 0.5],
    }
    name = f"{NAMES[key]} by {stratum.group}"
    if stratum.ordered:
        marks = gap_marks("signed_gap" if gap else key)
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
        shapes=[shape] if gap else [],
        annotations=_sides_across() if gap else [],
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
