"""What a figure is (title, key, panels, caption), and the few pieces every plot is drawn with.

Colours are CSS custom properties of the page, such as `var(--ink)`; the page resolves them for the
light or dark scheme when it draws. Keys are HTML above the panels, so that none covers a plot.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import plotly.graph_objects as go

from calibtrain.report.display import memory_bytes

Columns = Literal["halves", "thirds", "quarters"]

CLEAR = "rgba(0,0,0,0)"
INK, SOFT, GRID = "var(--ink)", "var(--ink-soft)", "var(--grid)"
OVER, UNDER = "var(--over)", "var(--under)"


@dataclass(frozen=True)
class Key:
    """One entry of a figure's key; the traces whose legendgroup is `name` follow its button."""

    name: str
    colour: str
    dash: str = "solid"
    mark: Literal["line", "block"] = "line"


@dataclass(frozen=True)
class Panel:
    """One plot of a figure under its own small title."""

    title: str
    plot: go.Figure
    height: int = 300
    full: bool = False
    """Whether it takes the whole width, beneath the others."""


@dataclass(frozen=True)
class Figure:
    """Panels that are read together. The title says what they show, the caption how to read it."""

    anchor: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    keys: tuple[Key, ...] = field(default=())
    columns: Columns = "halves"
    """How much of a wide page a panel takes; on a narrow one each has a row of its own."""
    below: str = ""
    """HTML beneath the caption: the table of what is drawn."""


def plot(
    traces: Iterable[Any],
    *,
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    shapes: Sequence[Mapping[str, Any]] = (),
    annotations: Sequence[Mapping[str, Any]] = (),
    **layout: Any,
) -> go.Figure:
    """A plot in the report's manner: no background, thin grid, axes that make room for labels."""
    more = {"margin": {"l": 8, "r": 14, "t": 10, "b": 8}, **layout}
    return go.Figure(
        list(traces),
        go.Layout(
            template=go.layout.Template(),
            paper_bgcolor=CLEAR,
            plot_bgcolor=CLEAR,
            font={"color": SOFT, "size": 12},
            showlegend=False,
            hovermode="closest",
            hoverlabel={
                "bgcolor": "var(--raised)",
                "bordercolor": "var(--line)",
                "font": {"color": INK, "size": 12},
                "align": "left",
            },
            xaxis=axis(**x),
            yaxis=axis(**y),
            shapes=list(shapes),
            annotations=list(annotations),
            **more,
        ),
    )


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title, unit included."""
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 12, "color": SOFT}},
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "var(--line)",
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "var(--line)",
        "automargin": True,
        "exponentformat": "none",
        **more,
    }


def line(
    xs: Sequence[Any],
    ys: Sequence[float | None],
    *,
    colour: str,
    group: str,
    hover: Sequence[str],
    dash: str = "solid",
    marks: bool = False,
    **more: Any,
) -> go.Scatter:
    """The line a reader should follow."""
    return go.Scatter(
        x=list(xs),
        y=list(ys),
        mode="lines+markers" if marks or len(xs) == 1 else "lines",
        line={"color": colour, "width": 2.25, "dash": dash},
        marker={"color": colour, "size": 7},
        legendgroup=group,
        hovertext=list(hover),
        hoverinfo="text",
        **more,
    )


def faint_line(
    xs: Sequence[Any], ys: Sequence[float | None], *, colour: str, group: str
) -> go.Scatter:
    """One seed, behind its mean."""
    return go.Scatter(
        x=list(xs),
        y=list(ys),
        mode="lines",
        line={"color": colour, "width": 1},
        opacity=0.35,
        legendgroup=group,
        hoverinfo="skip",
    )


def interval_bars(
    xs: Sequence[Any],
    intervals: Sequence[tuple[float, float] | None],
    *,
    colour: str,
    group: str,
) -> go.Scatter:
    """Intervals as upright bars with caps; unlike error bars they need not hold their estimate."""
    known = [(x, ends) for x, ends in zip(xs, intervals, strict=True) if ends is not None]
    return go.Scatter(
        x=[place for x, _ in known for place in (x, x, None)],
        y=[end for _, (low, high) in known for end in (low, high, None)],
        mode="lines+markers",
        line={"color": colour, "width": 1.5},
        marker={
            "color": colour,
            "symbol": "line-ew-open",
            "size": 8,
            "line": {"color": colour, "width": 1.5},
        },
        legendgroup=group,
        hoverinfo="skip",
    )


def level(value: float, text: str) -> dict[str, Any]:
    """A dashed horizontal reference line across the plot, named below its left end."""
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": value,
        "y1": value,
        "line": {"color": SOFT, "width": 1.5, "dash": "dash"},
        "label": {
            "text": text,
            "textposition": "start",
            "yanchor": "top",
            "font": {"color": SOFT, "size": 11},
        },
    }


def zero() -> dict[str, Any]:
    """The line between over-confident and under-confident."""
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": 0,
        "y1": 0,
        "layer": "below",
        "line": {"color": SOFT, "width": 1.25},
    }


def sides() -> list[dict[str, Any]]:
    """Words on the two sides of a signed gap's zero line."""
    shared = {"xref": "paper", "yref": "paper", "x": 1, "xanchor": "right", "showarrow": False}
    return [
        {**shared, "y": 1, "yanchor": "top", "text": "↑ over-confident", "font": _small(OVER)},
        {**shared, "y": 0, "yanchor": "bottom", "text": "↓ under-confident", "font": _small(UNDER)},
    ]


def _small(colour: str) -> dict[str, Any]:
    return {"size": 11, "color": colour}


def around_zero(values: Iterable[float | None], halves: Iterable[float | None] = ()) -> list[float]:
    """A range that holds every value (and interval) and zero, with room for words at both ends."""
    found = [v for v in values if v is not None and math.isfinite(v)] or [0.0]
    reach = max((h for h in halves if h is not None and math.isfinite(h)), default=0.0)
    low, high = min(0.0, min(found) - reach), max(0.0, max(found) + reach)
    room = max(high - low, 1e-6) * 0.22
    return [low - room, high + room]


def memory_ticks(values: Iterable[float | None], *, log: bool, most: int = 6) -> dict[str, Any]:
    """Axis settings for bytes of memory, with about `most` ticks at round binary amounts."""
    found = [v for v in values if v]
    if not found:
        return {}
    low, high = min(found), max(found)
    if log:
        first, last = math.floor(math.log2(low)), math.ceil(math.log2(high))
        stride = max(1, math.ceil((last - first) / most))
        ticks = [2.0**p for p in range(first, last + 1, stride)]
        bounds = [math.log10(low) - 0.12, math.log10(high) + 0.12]
        return {"type": "log", "range": bounds, **_ticks(ticks)}
    step = 2.0 ** math.ceil(math.log2(high / most))
    return {"rangemode": "tozero", **_ticks([i * step for i in range(math.ceil(high / step) + 1)])}


def _ticks(values: Sequence[float]) -> dict[str, Any]:
    return {"tickvals": list(values), "ticktext": [memory_bytes(v) for v in values]}
