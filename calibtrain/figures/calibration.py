"""Plots that runs and studies share: reliability in bins, and along training."""

import math
from collections.abc import Callable, Sequence
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
)
from calibtrain.metrics.quantities import QUANTITIES, number
from calibtrain.runs.records import EvaluationRecord, ReliabilityBin
from calibtrain.runs.results import RunResults

TRAINING_TEXT = "training text seen (bytes)"


@dataclass(frozen=True)
class Line:
    """What one line stands for: a name and a look, and the seeds it is the mean of."""

    name: str
    colour: str
    dash: str
    evaluations: tuple[EvaluationRecord, ...]
    runs: tuple[RunResults, ...]


# --- reliability ---------------------------------------------------------------------------------


def pool(evaluations: Sequence[EvaluationRecord]) -> list[ReliabilityBin]:
    """The reliability table of several seeds taken together, bin by bin."""
    pooled = []
    for rows in zip(*(e.reliability for e in evaluations), strict=False):
        full = [r for r in rows if r.tokens and r.confidence is not None and r.accuracy is not None]
        tokens = math.fsum(r.tokens for r in full)
        pooled.append(
            ReliabilityBin(
                lower=rows[0].lower,
                upper=rows[0].upper,
                tokens=tokens,
                confidence=_weighted(full, tokens, lambda r: r.confidence),
                accuracy=_weighted(full, tokens, lambda r: r.accuracy),
            )
        )
    return pooled


def _weighted(
    rows: Sequence[ReliabilityBin], tokens: float, value: Callable[[ReliabilityBin], Any]
) -> float | None:
    return math.fsum(r.tokens * value(r) for r in rows) / tokens if tokens else None


def reliability_panel(
    title: str, evaluations: Sequence[EvaluationRecord], colour: str, group: str
) -> Panel:
    """Accuracy against confidence over the share of tokens in each bin."""
    bins = pool(evaluations)
    total = math.fsum(b.tokens for b in bins) or 1.0
    full = [b for b in bins if b.confidence is not None and b.accuracy is not None]
    shares = [b.tokens / total for b in full]
    hover = [
        f"bin {b.lower:.3f} to {b.upper:.3f}<br>confidence {b.confidence:.4f}"
        f"<br>accuracy {b.accuracy:.4f}<br>{share:.2%} of tokens ({count(b.tokens)})"
        for b, share in zip(full, shares, strict=True)
    ]
    seeds = [
        faint_line(
            [b.confidence for b in e.reliability if b.confidence is not None],
            [b.accuracy for b in e.reliability if b.confidence is not None],
            colour=colour,
            group=group,
        )
        for e in (evaluations if len(evaluations) > 1 else ())
    ]
    curve = go.Scatter(
        x=[b.confidence for b in full],
        y=[b.accuracy for b in full],
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={
            "color": colour,
            "size": [5 + 17 * math.sqrt(share) for share in shares],
            "line": {"color": "var(--raised)", "width": 1},
            "opacity": 1,
        },
        legendgroup=group,
        hovertext=hover,
        hoverinfo="text",
    )
    bars = go.Bar(
        x=[(b.lower + b.upper) / 2 for b in bins],
        y=[b.tokens / total for b in bins],
        width=[(b.upper - b.lower) * 0.86 for b in bins],
        marker={"color": colour},
        opacity=0.55,
        yaxis="y2",
        legendgroup=group,
        hovertext=[
            f"bin {b.lower:.3f} to {b.upper:.3f}<br>{b.tokens / total:.2%} of tokens" for b in bins
        ],
        hoverinfo="text",
    )
    return Panel(
        title,
        plot(
            [diagonal(), *seeds, curve, bars],
            x=confidence_axis(anchor="y2"),
            y=accuracy_axis("accuracy"),
            yaxis2=axis("tokens", domain=[0, 0.2], tickformat=".0%", nticks=4, rangemode="tozero"),
            annotations=beside_diagonal(),
        ),
        height=360,
    )


def ece_by_bin(lines: Sequence[Line]) -> Panel:
    """What each bin adds: its share of the tokens times its gap, which weighs rare bins little."""
    traces, values = [], []
    for each in lines:
        bins = pool(each.evaluations)
        total = math.fsum(b.tokens for b in bins) or 1.0
        added = [
            (b, b.tokens / total * (b.confidence - b.accuracy))
            for b in bins
            if b.confidence is not None and b.accuracy is not None
        ]
        values += [part for _, part in added]
        traces.append(
            line(
                [b.confidence for b, _ in added],
                [part for _, part in added],
                colour=each.colour,
                dash=each.dash,
                group=each.name,
                marks=True,
                hover=[
                    f"{each.name}<br>bin {b.lower:.3f} to {b.upper:.3f}"
                    f"<br>adds {number(part, 5, signed=True)}<br>{count(b.tokens)} tokens"
                    for b, part in added
                ],
            )
        )
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
    """One quantity along training, measured on held-out text."""
    traces = list(extra)
    values = [y for trace in extra for y in trace.y]
    for each in lines:
        curves = [_curve(run, key) for run in each.runs]
        if len(curves) > 1:
            traces += [
                faint_line(
                    [x for x, _ in curve],
                    [y for _, y in curve],
                    colour=each.colour,
                    group=each.name,
                )
                for curve in curves
            ]
        points = mean_curve(curves)
        values += [y for curve in curves for _, y in curve]
        traces.append(
            line(
                [x for x, _ in points],
                [y for _, y in points],
                colour=each.colour,
                dash=each.dash,
                group=each.name,
                marks=len(points) <= 12,
                hover=[
                    f"{each.name}<br>after {text_bytes(x)}<br>"
                    f"{QUANTITIES[key].name} {shown(key, y)}"
                    for x, y in points
                ],
            )
        )
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
    """Mean over seeds of the first, second, ... evaluation, as far as every seed has come.

    Seeds are matched by the order of their evaluations, not by their steps: another order of the
    documents fills a step with another number of bytes, and the steps of an evaluation move a bit.
    """
    begun = [curve for curve in curves if curve]
    return [
        (
            math.fsum(x for x, _ in points) / len(points),
            math.fsum(y for _, y in points) / len(points),
        )
        for points in zip(*begun, strict=False)
    ]
