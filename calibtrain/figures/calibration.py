"""Plots that runs and studies share: reliability in bins, and along training."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.display import count, shown, text_bytes
from calibtrain.figures.panels import (
    Panel,
    accuracy_axis,
    axis,
    beside_diagonal,
    confidence_axis,
    diagonal,
    exact_level,
    faint_line,
    gap_axis,
    gap_marks,
    line,
    plot,
    room_for_level,
    told,
)
from calibtrain.metrics.quantities import QUANTITIES, number
from calibtrain.runs.evaluation_records import EvaluationRecord, ReliabilityBin
from calibtrain.runs.results import RunResults

TRAINING_TEXT = "training text seen (bytes)"


@dataclass(frozen=True)
class Line:
    """One line of a figure: its name and style, and the seeds whose mean it shows."""

    name: str
    colour: str
    dash: str
    evaluations: tuple[EvaluationRecord, ...]
    runs: tuple[RunResults, ...]


def overlaid(
    each: Line,
    seeds: Sequence[Iterable[tuple[Any, float | None]]],
    mean: Iterable[tuple[Any, float | None]],
    say: Callable[[Any, float], str],
    *,
    marks: bool = False,
) -> list[go.Scatter]:
    """Returns the line of the mean over seeds, and faint lines of several seeds."""
    look = {"colour": each.colour, "group": each.name}
    points = [(x, y, "" if y is None else f"{each.name}<br>{say(x, y)}") for x, y in mean]
    faint = [faint_line(seed, **look) for seed in seeds] if len(seeds) > 1 else []
    return [*faint, line(points, dash=each.dash, marks=marks, **look)]


# --- reliability ---------------------------------------------------------------------------------


def pool(evaluations: Sequence[EvaluationRecord]) -> list[ReliabilityBin]:
    """Returns the reliability table of several seeds pooled bin by bin."""
    pooled = []
    for rows in zip(*(e.reliability for e in evaluations), strict=False):
        full = _full(rows)
        tokens = math.fsum(b.tokens for b, _, _ in full)
        sums = [math.fsum(b.tokens * row[i] for b, *row in full) for i in (0, 1)]
        confidence, accuracy = (each / tokens for each in sums) if tokens else (None, None)
        ends = {"lower": rows[0].lower, "upper": rows[0].upper}
        found = ReliabilityBin(**ends, tokens=tokens, confidence=confidence, accuracy=accuracy)
        pooled.append(found)
    return pooled


def _full(bins: Iterable[ReliabilityBin]) -> list[tuple[ReliabilityBin, float, float]]:
    """Returns the bins that hold an event, with their confidence and accuracy."""
    return [
        (b, b.confidence, b.accuracy)
        for b in bins
        if b.tokens and b.confidence is not None and b.accuracy is not None
    ]


def _name(b: ReliabilityBin) -> str:
    return f"bin {b.lower:.3f} to {b.upper:.3f}"


def reliability_panel(
    title: str, evaluations: Sequence[EvaluationRecord], colour: str, group: str
) -> Panel:
    """Returns the panel of accuracy against confidence, over the share of tokens in each bin."""
    bins = pool(evaluations)
    total = math.fsum(b.tokens for b in bins) or 1.0
    full = _full(bins)
    points = [
        (
            confidence,
            accuracy,
            f"{_name(b)}<br>confidence {confidence:.4f}<br>accuracy {accuracy:.4f}"
            f"<br>{b.tokens / total:.2%} of events ({count(b.tokens)})",
        )
        for b, confidence, accuracy in full
    ]
    seeds = [
        faint_line([row for _, *row in _full(e.reliability)], colour=colour, group=group)
        for e in (evaluations if len(evaluations) > 1 else ())
    ]
    curve = go.Scatter(
        **told(points),
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={
            "color": colour,
            "size": [5 + 17 * math.sqrt(b.tokens / total) for b, _, _ in full],
            "line": {"color": "var(--raised)", "width": 1},
            "opacity": 1,
        },
        legendgroup=group,
    )
    bars = go.Bar(
        **told(
            ((b.lower + b.upper) / 2, share, f"{_name(b)}<br>{share:.2%} of events")
            for b in bins
            for share in (b.tokens / total,)
        ),
        width=[(b.upper - b.lower) * 0.86 for b in bins],
        marker={"color": colour},
        opacity=0.55,
        yaxis="y2",
        legendgroup=group,
    )
    return Panel(
        title,
        plot(
            [diagonal(), *seeds, curve, bars],
            x=confidence_axis(anchor="y2"),
            y=accuracy_axis("accuracy"),
            yaxis2=axis("share", domain=[0, 0.2], tickformat=".0%", nticks=4, rangemode="tozero"),
            annotations=beside_diagonal(),
        ),
        height=360,
    )


def ece_by_bin(lines: Sequence[Line]) -> Panel:
    """Returns the panel of each bin's part of the ECE: its share of the tokens times its gap."""
    traces, values = [], []
    for each in lines:
        bins = pool(each.evaluations)
        total = math.fsum(b.tokens for b in bins) or 1.0
        points = []
        for b, confidence, accuracy in _full(bins):
            part = b.tokens / total * (confidence - accuracy)
            text = f"{each.name}<br>{_name(b)}<br>adds "
            text += f"{number(part, 5, signed=True)}<br>{count(b.tokens)} events"
            points.append((confidence, part, text))
        values += [part for _, part, _ in points]
        traces.append(line(points, colour=each.colour, dash=each.dash, group=each.name, marks=True))
    return Panel(
        "What each bin adds to the ECE",
        plot(
            traces,
            x=confidence_axis(),
            y={**gap_axis(values), "title": "share × (conf. − accuracy)"},
            **gap_marks("signed_gap"),
        ),
        height=300 if lines[1:] else 360,
        full=bool(lines[1:]),
    )


# --- along training ------------------------------------------------------------------------------


def training_panel(
    title: str, key: str, lines: Sequence[Line], *, exact: float | None, extra: Sequence[Any] = ()
) -> Panel:
    """Returns the panel of one quantity on held-out text during training."""
    traces = list(extra)
    values = [y for trace in extra for y in trace.y]

    def say(x: float, y: float) -> str:
        return f"after {text_bytes(x)}<br>{QUANTITIES[key].name} {shown(key, y)}"

    for each in lines:
        seeds = [_curve(run, key) for run in each.runs]
        mean = mean_curve(seeds)
        values += [y for curve in seeds for _, y in curve]
        traces += overlaid(each, seeds, mean, say, marks=len(mean) <= 12)
    marks = gap_marks(key)
    if exact is not None:
        marks["shapes"].append(exact_level(exact))
    foot = {"title": TRAINING_TEXT, "tickformat": "~s", "ticksuffix": "B", "nticks": 6}
    return Panel(
        title,
        plot(
            traces,
            x={**foot, "rangemode": "tozero"},
            y=gap_axis(values)
            if key == "signed_gap"
            else {"title": f"ECE ({QUANTITIES[key].unit})", "rangemode": "tozero"}
            if key == "ece"
            else {"title": QUANTITIES[key].unit, **room_for_level(exact, values)},
            **marks,
        ),
    )


def _curve(run: RunResults, key: str) -> list[tuple[float, float]]:
    return [
        (m.bytes, m.values[key]) for m in run.measured if m.bytes is not None and key in m.values
    ]


def mean_curve(curves: Sequence[Sequence[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Returns the mean over seeds of the first, second, ... evaluation that every seed has.

    Seeds are matched by the order of their evaluations, not by their steps: with another order of
    documents, a step has another number of bytes, so evaluations come at slightly other steps.
    """
    begun = [curve for curve in curves if curve]
    return [
        (
            math.fsum(x for x, _ in points) / len(points),
            math.fsum(y for _, y in points) / len(points),
        )
        for points in zip(*begun, strict=False)
    ]
