"""The parts of a figure (title, key, panels, caption), and the elements that every plot shares.

The page draws keys above the panels, so that none covers a plot.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import plotly.graph_objects as go

from calibtrain.figures.display import memory_bytes
from calibtrain.figures.style import OVER, SOFT, TEMPLATE, UNDER
from calibtrain.metrics.quantities import QUANTITIES, number

Columns = Literal["halves", "thirds", "quarters"]


Point = tuple[Any, float | None, str]
"""The x coordinate of a point, its value, and its text on hover."""


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
    """Whether it takes the whole width, below the others."""


@dataclass(frozen=True)
class Figure:
    """Panels that belong together; the title says what they show, the caption how to read them."""

    anchor: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    keys: tuple[Key, ...] = field(default=())
    columns: Columns = "halves"
    """The width of a panel on a wide page; on a narrow page, each has its own row."""


def plot(
    traces: Iterable[Any],
    *,
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    shapes: Sequence[Mapping[str, Any]] = (),
    annotations: Sequence[Mapping[str, Any]] = (),
    **layout: Any,
) -> go.Figure:
    """Returns a plot in the style of this package (`style.TEMPLATE`)."""
    return go.Figure(
        list(traces),
        go.Layout(
            template=TEMPLATE,
            xaxis=axis(**x),
            yaxis=axis(**y),
            shapes=list(shapes),
            annotations=list(annotations),
            **layout,
        ),
    )


def axis(title: str, **more: Any) -> dict[str, Any]:
    """Returns an axis with its title, unit included."""
    return {"title": {"text": title}, **more}


def told(points: Iterable[Point]) -> dict[str, Any]:
    """Returns x, y and hover texts of points, as keyword arguments of a trace."""
    rows = list(points)
    return {**untold(rows), "hovertext": [text for _, _, text in rows], "hoverinfo": "text"}


def untold(points: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """Returns x and y of points without hover texts, as keyword arguments of a trace."""
    rows = list(points)
    return {"x": [row[0] for row in rows], "y": [row[1] for row in rows], "hoverinfo": "skip"}


def line(
    points: Sequence[Point], *, colour: str, group: str, dash: str = "solid", marks: bool = False
) -> go.Scatter:
    """Returns the main line of a plot."""
    return go.Scatter(
        **told(points),
        name="value",
        mode="lines+markers" if marks or len(points) == 1 else "lines",
        line={"color": colour, "width": 2.25, "dash": dash},
        marker={"color": colour, "size": 7},
        legendgroup=group,
    )


def faint_line(points: Iterable[Sequence[Any]], *, colour: str, group: str) -> go.Scatter:
    """Returns the faint line of one seed, drawn behind the mean."""
    look = {"line": {"color": colour, "width": 1}, "opacity": 0.35}
    return go.Scatter(**untold(points), name="single seed", mode="lines", legendgroup=group, **look)


def interval_bars(
    points: Iterable[tuple[Any, tuple[float, float] | None]], *, colour: str, group: str
) -> go.Scatter:
    """Returns intervals as vertical bars with caps; they need not contain their estimate."""
    pen = {"color": colour, "width": 1.5}
    ends = [(x, end) for x, each in points if each for end in (*each, None)]
    return go.Scatter(
        x=[None if end is None else x for x, end in ends],
        y=[end for _, end in ends],
        name="95 % interval",
        mode="lines+markers",
        line=pen,
        marker={"color": colour, "symbol": "line-ew-open", "size": 8, "line": pen},
        legendgroup=group,
        hoverinfo="skip",
    )


def diagonal() -> go.Scatter:
    """Returns the line on which accuracy equals confidence."""
    look = {"color": SOFT, "width": 1.5, "dash": "dash"}
    return go.Scatter(**untold([(0, 0), (1, 1)]), name="diagonal", mode="lines", line=look)


def confidence_axis(**more: Any) -> dict[str, Any]:
    """Returns the x axis of a plot against confidence."""
    return {"title": "confidence (probability)", "range": [-0.02, 1.02], "dtick": 0.2, **more}


def accuracy_axis(title: str) -> dict[str, Any]:
    """Returns the y axis of accuracy, above a second plot of the distribution of confidence."""
    ticks = {"dtick": 0.2, "tickformat": ".1f"}
    return {"title": title, "range": [-0.03, 1.05], "domain": [0.3, 1], **ticks}


def beside_diagonal() -> list[dict[str, Any]]:
    """Returns the annotations on the two sides of the diagonal."""
    shared = {"showarrow": False, "xref": "x", "yref": "y"}
    under = {"x": 0.02, "y": 0.99, "xanchor": "left", "text": "under-confident"}
    over = {"x": 1, "y": 0.03, "xanchor": "right", "text": "over-confident"}
    return [{**shared, **under, "font": small(UNDER)}, {**shared, **over, "font": small(OVER)}]


def level(value: float, text: str) -> dict[str, Any]:
    """Returns a dashed horizontal reference line, labelled below its left end."""
    name = {"text": text, "textposition": "start", "yanchor": "top", "font": small(SOFT)}
    look = {"color": SOFT, "width": 1.5, "dash": "dash"}
    return {**_across(value), "line": look, "label": name}


def zero() -> dict[str, Any]:
    """Returns the line between over-confident and under-confident."""
    return {**_across(0), "layer": "below", "line": {"color": SOFT, "width": 1.25}}


def _across(value: float) -> dict[str, Any]:
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value}


def sides(above: str = "over-confident", below: str = "under-confident") -> list[dict[str, Any]]:
    """Returns the annotations on the two sides of a signed gap's zero line."""
    shared = {"xref": "paper", "yref": "paper", "x": 1, "xanchor": "right", "showarrow": False}
    over = {"y": 1, "yanchor": "top", "text": f"↑ {above}", "font": small(OVER)}
    under = {"y": 0, "yanchor": "bottom", "text": f"↓ {below}", "font": small(UNDER)}
    return [{**shared, **over}, {**shared, **under}]


def small(colour: str) -> dict[str, Any]:
    """Returns the font of annotations in a plot."""
    return {"size": 11, "color": colour}


def around_zero(values: Iterable[float | None], halves: Iterable[float | None] = ()) -> list[float]:
    """Returns a range with every value, interval and zero, and room for words at both ends."""
    found = [v for v in values if v is not None and math.isfinite(v)] or [0.0]
    reach = max((h for h in halves if h is not None and math.isfinite(h)), default=0.0)
    low, high = min(0.0, min(found) - reach), max(0.0, max(found) + reach)
    room = max(high - low, 1e-6) * 0.22
    return [low - room, high + room]


def memory_ticks(values: Iterable[float | None], *, log: bool, most: int = 6) -> dict[str, Any]:
    """Returns axis settings for memory, with at most about `most` ticks at round binary amounts."""
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


def exact_level(value: float) -> dict[str, Any]:
    """Returns the reference line at the known entropy rate of a synthetic source."""
    return level(value, f"source: {number(value, 3)} bits/byte, exact")


def room_for_level(value: float | None, values: Iterable[float]) -> dict[str, Any]:
    """Returns axis settings that show every value and leave room for a reference line's label."""
    if value is None:
        return {}
    found = [v for v in (value, *values) if math.isfinite(v)]
    room = max(max(found) - min(found), 1e-3) * 0.12
    return {"range": [min(found) - 1.3 * room, max(found) + room]}


def gap_axis(values: Iterable[float | None], halves: Iterable[float | None] = ()) -> dict[str, Any]:
    """Returns the y axis of signed gaps."""
    title = QUANTITIES["signed_gap"].unit_in_words()
    return {"title": title, "range": around_zero(values, halves)}


def gap_marks(key: str) -> dict[str, Any]:
    """Returns the zero line and its annotations for a signed gap; nothing for other figures."""
    gap = key == "signed_gap"
    return {"shapes": [zero()] if gap else [], "annotations": sides() if gap else []}


def _ticks(values: Sequence[float]) -> dict[str, Any]:
    return {"tickvals": list(values), "ticktext": [memory_bytes(v) for v in values]}
