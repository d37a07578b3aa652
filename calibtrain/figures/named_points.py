"""A panel of points with intervals above their names: groups of questions, members of ensembles."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.panels import Panel, interval_bars, plot, told, zero

Ends = tuple[float, float] | None
Row = tuple[str, float, Ends]
"""What is named on the x axis, its value, and its interval."""


def marked_panel(
    title: str,
    rows: Sequence[Row],
    group: str,
    colour: str,
    say: Callable[[float], str],
    *,
    y: Mapping[str, Any],
    last: str | None = None,
    extra: Sequence[go.Scatter] = (),
    annotations: Sequence[Mapping[str, Any]] = (),
) -> Panel:
    """Returns points with intervals above their names; `last` colours the last one."""
    parts = [(rows, colour)] if last is None else [(rows[:-1], colour), (rows[-1:], last)]
    traces: list[go.Scatter] = []
    for some, own in parts:
        bars = interval_bars([(name, ends) for name, _, ends in some], colour=own, group=group)
        points = go.Scatter(
            **told((name, value, _hover(name, value, ends, say)) for name, value, ends in some),
            name="value",
            mode="markers",
            marker={"color": own, "size": 9},
            legendgroup=group,
        )
        traces += [bars, points]
    return Panel(
        title,
        plot(
            [*traces, *extra],
            x={"title": "", "type": "category", "automargin": True},
            y=y,
            shapes=[zero()] if "range" in y else [],
            annotations=annotations,
        ),
        height=320,
    )


def ends_of(found: Any) -> Ends:
    """Returns the ends of an interval; None where there is none."""
    if found is None or found.lower is None or found.upper is None:
        return None
    return found.lower, found.upper


def reached(rows: Sequence[Row]) -> list[float]:
    """Returns every value of some rows, and every end of an interval."""
    return [each for _, value, ends in rows for each in (value, *(ends or ()))]


def _hover(name: str, value: float, ends: Ends, say: Callable[[float], str]) -> str:
    around = "" if ends is None else f" [{say(ends[0])}, {say(ends[1])}]"
    return f"{name}<br>{say(value)}{around}"
