"""What a figure is (title, key, panels, caption), and the few pieces every plot is drawn with.

Keys are drawn by the page above the panels, so that none covers a plot.
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


def plot(
    traces: Iterable[Any],
    *,
    x: Mapping[str, Any],
    y: Mapping[str, Any],
    shapes: Sequence[Mapping[str, Any]] = (),
    annotations: Sequence[Mapping[str, Any]] = (),
    **layout: Any,
) -> go.Figure:
    """A plot in this package's manner (`style.TEMPLATE`)."""
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
    """An axis with its title, unit included."""
    return {"title": {"text": title}, **more}


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


def diagonal() -> go.Scatter:
    """Where accuracy equals confidence."""
    return go.Scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": SOFT, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
    )


def confidence_axis(**more: Any) -> dict[str, Any]:
    """The foot of every plot against confidence."""
    return {"title": "confidence (probability)", "range": [-0.02, 1.02], "dtick": 0.2, **more}


def accuracy_axis(title: str) -> dict[str, Any]:
    """Accuracy above a second plot of what the confidence is of."""
    ticks = {"dtick": 0.2, "tickformat": ".1f"}
    return {"title": title, "range": [-0.03, 1.05], "domain": [0.3, 1], **ticks}


def beside_diagonal() -> list[dict[str, Any]]:
    """Words on the two sides of the diagonal."""
    shared = {"showarrow": False, "xref": "x", "yref": "y"}
    return [
        {**shared, "x": 0.02, "y": 0.99, "xanchor": "left", "text": "under-confident"}
        | {"font": _small(UNDER)},
        {**shared, "x": 1, "y": 0.03, "xanchor": "right", "text": "over-confident"}
        | {"font": _small(OVER)},
    ]


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


def exact_level(value: float) -> dict[str, Any]:
    """The reference line of a synthetic source, whose entropy rate is known."""
    return level(value, f"source: {number(value, 3)} bits/byte, exact")


def room_for_level(value: float | None, values: Iterable[float]) -> dict[str, Any]:
    """Axis settings that show every value and leave room for a reference level's name under it."""
    if value is None:
        return {}
    found = [v for v in (value, *values) if math.isfinite(v)]
    room = max(max(found) - min(found), 1e-3) * 0.12
    return {"range": [min(found) - 1.3 * room, max(found) + room]}


def gap_axis(values: Iterable[float | None], halves: Iterable[float | None] = ()) -> dict[str, Any]:
    """An axis of signed gaps."""
    title = QUANTITIES["signed_gap"].unit_in_words()
    return {"title": title, "range": around_zero(values, halves)}


def gap_marks(key: str) -> dict[str, Any]:
    """The zero line and the words on its sides, in a plot of signed gaps; nothing in others."""
    gap = key == "signed_gap"
    return {"shapes": [zero()] if gap else [], "annotations": sides() if gap else []}


def _ticks(values: Sequence[float]) -> dict[str, Any]:
    return {"tickvals": list(values), "ticktext": [memory_bytes(v) for v in values]}
