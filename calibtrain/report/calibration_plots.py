"""Plots that runs and studies share: reliability in bins, and along training."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from calibtrain.report.display import QUANTITIES, count, number, shown, text_bytes
from calibtrain.report.figures import (
    OVER,
    SOFT,
    UNDER,
    Panel,
    around_zero,
    axis,
    faint_line,
    level,
    line,
    plot,
    sides,
    zero,
)
from calibtrain.report.results import Bin, Evaluation, Run

TRAINING_TEXT = "training text seen (bytes)"


@dataclass(frozen=True)
class Line:
    """What one line stands for: a name and a look, and the seeds it is the mean of."""

    name: str
    colour: str
    dash: str
    evaluations: tuple[Evaluation, ...]
    runs: tuple[Run, ...]


# --- reliability ---------------------------------------------------------------------------------


def pool(evaluations: Sequence[Evaluation]) -> list[Bin]:
    """The reliability table of several seeds taken together, bin by bin."""
    pooled = []
    for rows in zip(*(e.reliability for e in evaluations), strict=False):
        full = [r for r in rows if r.tokens and r.confidence is not None and r.accuracy is not None]
        tokens = math.fsum(r.tokens for r in full)
        pooled.append(
            Bin(
                lower=rows[0].lower,
                upper=rows[0].upper,
                tokens=tokens,
                confidence=_weighted(full, tokens, lambda r: r.confidence),
                accuracy=_weighted(full, tokens, lambda r: r.accuracy),
            )
        )
    return pooled


def _weighted(rows: Sequence[Bin], tokens: float, value: Callable[[Bin], Any]) -> float | None:
    return math.fsum(r.tokens * value(r) for r in rows) / tokens if tokens else None


def reliability_panel(
    title: str, evaluations: Sequence[Evaluation], colour: str, group: str
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
    diagonal = go.Scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": SOFT, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
    )
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
    words = {"showarrow": False, "xref": "x", "yref": "y"}
    return Panel(
        title,
        plot(
            [diagonal, *seeds, curve, bars],
            x={
                "title": "confidence (probability)",
                "range": [-0.02, 1.02],
                "anchor": "y2",
                "dtick": 0.2,
            },
            y={
                "title": "accuracy",
                "range": [-0.03, 1.05],
                "domain": [0.3, 1],
                "dtick": 0.2,
                "tickformat": ".1f",
            },
            yaxis2=axis(
                "tokens",
                domain=[0, 0.2],
                tickformat=".0%",
                nticks=4,
                rangemode="tozero",
            ),
            annotations=[
                {**words, "x": 0.02, "y": 0.99, "xanchor": "left", "text": "under-confident"}
                | {"font": {"size": 11, "color": UNDER}},
                {**words, "x": 1, "y": 0.03, "xanchor": "right", "text": "over-confident"}
                | {"font": {"size": 11, "color": OVER}},
            ],
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
            x={"title": "confidence (probability)", "range": [-0.02, 1.02], "dtick": 0.2},
            y={"title": "share × (conf. − accuracy)", "range": around_zero(values)},
            shapes=[zero()],
            annotations=sides(),
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
    gap = key == "signed_gap"
    unit = QUANTITIES[key].unit
    return Panel(
        title,
        plot(
            traces,
            x={"title": TRAINING_TEXT, "tickformat": "~s", "ticksuffix": "B", "nticks": 6}
            | {"rangemode": "tozero"},
            y={"title": "confidence − accuracy", "range": around_zero(values)}
            if gap
            else {"title": f"ECE ({unit})", "rangemode": "tozero"}
            if key == "ece"
            else {"title": unit, **room_for_level(exact, values)},
            shapes=([zero()] if gap else []) + ([] if exact is None else [exact_level(exact)]),
            annotations=sides() if gap else [],
        ),
    )


def exact_level(value: float) -> Mapping[str, Any]:
    """The reference line of a synthetic source, whose entropy rate is known."""
    return level(value, f"source: {number(value, 3)} bits/byte, exact")


def room_for_level(value: float | None, values: Iterable[float]) -> dict[str, Any]:
    """Axis settings that show every value and leave room for a reference level's name under it."""
    if value is None:
        return {}
    found = [v for v in (value, *values) if math.isfinite(v)]
    room = max(max(found) - min(found), 1e-3) * 0.12
    return {"range": [min(found) - 1.3 * room, max(found) + room]}


def _curve(run: Run, key: str) -> list[tuple[float, float]]:
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
