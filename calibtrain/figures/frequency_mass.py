"""The figure of mass calibration: the probability given to common and rare tokens, and their share.

The mass of a decile of the vocabulary is a functional of the prediction alone, so that a calibrated
model has a gap of 0 in every decile.
"""

from collections.abc import Callable, Sequence
from typing import Any

from calibtrain.figures.calibration import Line
from calibtrain.figures.panels import (
    Figure,
    Key,
    Panel,
    around_zero,
    faint_line,
    interval_bars,
    line,
    plot,
    small,
    zero,
)
from calibtrain.figures.style import OVER, UNDER
from calibtrain.metrics.quantities import number
from calibtrain.runs.records import FrequencyMassRow

AXIS = "frequency decile of the vocabulary (1 = commonest)"


def mass_figure(lines: Sequence[Line], keys: Sequence[Key] = ()) -> Figure | None:
    """Returns the gap and the share of every decile; None where no evaluation has them."""
    known = [each for each in lines if any(e.frequency_mass for e in each.evaluations)]
    if not known:
        return None
    seeds = max(len(each.evaluations) for each in known)
    bars = (
        "Bars are 95 % intervals over documents."
        if seeds == 1
        else "Thin lines are single seeds; intervals over seeds are in the table."
    )
    return Figure(
        anchor="frequency-mass",
        title="Mass calibration: how much probability common and rare tokens get",
        caption="Each decile of the vocabulary holds about a tenth of the training tokens. The gap "
        "is the mean probability that the model gives to all entries of a decile together, less "
        "the share of the text’s tokens that lie in it: a calibrated model has 0 everywhere. The "
        f"second panel has both shares, the observed one dotted. {bars}",
        panels=(_gap_panel(known), _share_panel(known)),
        keys=tuple(keys),
    )


def rows_of(each: Line) -> list[tuple[str, list[FrequencyMassRow]]]:
    """Returns the deciles by name, each with its rows of all evaluations."""
    tables = [e.frequency_mass for e in each.evaluations if e.frequency_mass]
    return [(rows[0].label, list(rows)) for rows in zip(*tables, strict=False)]


def _gap_panel(lines: Sequence[Line]) -> Panel:
    traces: list[Any] = []
    reach: list[float | None] = []
    for index, each in enumerate(lines):
        shift = min(0.09, 0.7 / len(lines)) * (index - (len(lines) - 1) / 2)
        look = {"colour": each.colour, "group": each.name}
        table = rows_of(each)
        xs = [place + shift for place in range(1, len(table) + 1)]
        if (seeds := len(each.evaluations)) > 1:
            traces += _seeds(each, xs, lambda row: row.gap)
            reach += [row.gap for _, rows in table for row in rows]
        found = [rows[0].interval("gap") if seeds == 1 else None for _, rows in table]
        ends = [(one.lower, one.upper) if one else None for one in found]
        if any(ends):
            traces.append(interval_bars(zip(xs, ends, strict=True), **look))
            reach += [end for pair in ends if pair for end in pair]
        points = [
            (x, gap, f"{each.name}<br>decile {name}<br>gap {number(gap, 5, signed=True)}")
            for x, (name, rows) in zip(xs, table, strict=True)
            for gap in (_mean([row.gap for row in rows]),)
        ]
        reach += [gap for _, gap, _ in points]
        traces.append(line(points, dash=each.dash, marks=True, **look))
    shared = {"xref": "paper", "yref": "paper", "x": 1, "xanchor": "right", "showarrow": False}
    more = {"y": 1, "yanchor": "top", "text": "↑ too much probability", "font": small(OVER)}
    less = {"y": 0, "yanchor": "bottom", "text": "↓ too little", "font": small(UNDER)}
    y = {"title": "predicted − observed share", "range": around_zero(reach)}
    marks = {"shapes": [zero()], "annotations": [{**shared, **more}, {**shared, **less}]}
    return Panel("Gap by decile", plot(traces, x=_foot(lines), y=y, **marks))


def _share_panel(lines: Sequence[Line]) -> Panel:
    traces: list[Any] = []
    for each in lines:
        table = rows_of(each)
        xs = range(1, len(table) + 1)
        look = {"colour": each.colour, "group": each.name}
        for what, dash in (("predicted", each.dash), ("observed", "dot")):
            points = [
                (x, share, f"{each.name}<br>decile {name}<br>{what} {number(share, 5)}")
                for x, (name, rows) in zip(xs, table, strict=True)
                for share in (_mean([getattr(row, f"{what}_share") for row in rows]),)
            ]
            traces.append(line(points, dash=dash, marks=what == "predicted", **look))
            traces[-1].name = what
    y = {"title": "share of tokens", "rangemode": "tozero", "tickformat": ".0%"}
    return Panel("Predicted and observed share", plot(traces, x=_foot(lines), y=y))


def _seeds(each: Line, xs: Sequence[float], read: Callable[[FrequencyMassRow], float]) -> list[Any]:
    tables = [e.frequency_mass for e in each.evaluations if e.frequency_mass]
    return [
        faint_line(zip(xs, map(read, rows), strict=False), colour=each.colour, group=each.name)
        for rows in tables
    ]


def _foot(lines: Sequence[Line]) -> dict[str, Any]:
    names = [name for name, _ in rows_of(lines[0])]
    places = list(range(1, len(names) + 1))
    ticks = {"tickvals": places, "ticktext": names, "range": [0.5, len(names) + 0.5]}
    return {"title": AXIS, **ticks}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
