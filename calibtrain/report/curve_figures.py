"""What needs no bins: the kernel-smoothed reliability curve, and risk against coverage."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from calibtrain.report.calibration_plots import Line
from calibtrain.report.display import number
from calibtrain.report.figures import (
    OVER,
    SOFT,
    UNDER,
    Figure,
    Key,
    Panel,
    axis,
    faint_line,
    line,
    plot,
)
from calibtrain.report.results import Evaluation
from calibtrain.report.signatures import columns_of, mixed

_FIGURES = ("smooth_calibration_error", "area_under_risk_coverage")
_RARE = 1e-3
"""Density, against that of the densest place, below which the curve is left out: of no token."""


def curves(lines: Sequence[Line], keys: Sequence[Key] = ()) -> Figure | None:
    """Both curves of every line; None where no evaluation holds any.

    Args:
        lines: one for a run, or one a combination of settings.
        keys: of the lines, where there are several.
    """
    evaluations = [e for each in lines for e in each.evaluations]
    panels = []
    if any(e.smooth_reliability for e in evaluations):
        panels.append(_smooth_panel(lines))
    if any(e.risk_coverage for e in evaluations):
        panels.append(_risk_panel(lines))
    if not panels:
        return None
    mix = mixed(columns_of(evaluations, _FIGURES))
    seeds = (
        " Lines are means over seeds, thin lines single seeds."
        if any(len(each.evaluations) > 1 for each in lines)
        else ""
    )
    return Figure(
        anchor="curves",
        title="Without bins: smooth reliability, and risk against coverage",
        caption="First, accuracy against confidence, smoothed with the kernel width that SmoothECE "
        "finds, over the density of the tokens; the curve is left out where there are next to "
        "none. Then the error rate of what the model is surest of, against how much of the text "
        f"that is: the lower, the better confidence ranks.{seeds}{' ' + mix if mix else ''}",
        panels=tuple(panels),
        keys=tuple(keys),
    )


def _smooth_panel(lines: Sequence[Line]) -> Panel:
    traces: list[Any] = [
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            line={"color": SOFT, "width": 1.5, "dash": "dash"},
            hoverinfo="skip",
        )
    ]
    for each in lines:
        seeds = [_smooth(e) for e in each.evaluations if e.smooth_reliability]
        traces += _overlaid(
            each, seeds, lambda x, y: f"confidence {x:.2f}<br>smoothed accuracy {number(y, 4)}"
        )
        below = _mean_curve([_density(e) for e in each.evaluations if e.smooth_reliability])
        traces.append(
            go.Scatter(
                x=list(below),
                y=list(below.values()),
                mode="lines",
                line={"color": each.colour, "width": 1.25, "dash": each.dash},
                fill="tozeroy" if len(lines) == 1 else "none",
                yaxis="y2",
                legendgroup=each.name,
                hoverinfo="skip",
            )
        )
    words = {"showarrow": False, "xref": "x", "yref": "y"}
    return Panel(
        _titled("Smooth reliability", "SmoothECE", "smooth_calibration_error", lines),
        plot(
            traces,
            x={"title": "confidence (probability)", "range": [-0.02, 1.02], "anchor": "y2"}
            | {"dtick": 0.2},
            y={"title": "accuracy, smoothed", "range": [-0.03, 1.05], "domain": [0.3, 1]}
            | {"dtick": 0.2, "tickformat": ".1f"},
            yaxis2=axis("density", domain=[0, 0.2], nticks=4, rangemode="tozero"),
            annotations=[
                {**words, "x": 0.02, "y": 0.99, "xanchor": "left", "text": "under-confident"}
                | {"font": {"size": 11, "color": UNDER}},
                {**words, "x": 1, "y": 0.03, "xanchor": "right", "text": "over-confident"}
                | {"font": {"size": 11, "color": OVER}},
            ],
        ),
        height=360,
    )


def _risk_panel(lines: Sequence[Line]) -> Panel:
    traces: list[Any] = []
    for each in lines:
        seeds: list[Mapping[float, float | None]] = [
            dict(e.risk_coverage) for e in each.evaluations if e.risk_coverage
        ]
        traces += _overlaid(each, seeds, lambda x, y: f"the surest {x:.0%}<br>risk {number(y, 4)}")
    return Panel(
        _titled("Risk against coverage", "AURC", "area_under_risk_coverage", lines),
        plot(
            traces,
            x={"title": "coverage (share of tokens, surest first)", "range": [-0.02, 1.02]}
            | {"tickformat": ".0%", "dtick": 0.2},
            y={"title": "risk (error rate)", "rangemode": "tozero"},
        ),
        height=360,
    )


def _smooth(evaluation: Evaluation) -> dict[float, float | None]:
    points = evaluation.smooth_reliability
    least = _RARE * max(point.density for point in points)
    return {p.confidence: p.accuracy if p.density >= least else None for p in points}


def _density(evaluation: Evaluation) -> dict[float, float | None]:
    """Density of the tokens at a confidence, whose integral is 1 as tokens are many or few."""
    points = evaluation.smooth_reliability
    area = sum(
        (b.confidence - a.confidence) * (a.density + b.density) / 2
        for a, b in itertools.pairwise(points)
    )
    return {p.confidence: p.density / (area or 1.0) for p in points}


def _overlaid(each: Line, seeds: Sequence[Mapping[float, float | None]], say: Any) -> list[Any]:
    """The mean over seeds in front of the seeds."""
    if not seeds:
        return []
    faint = [
        faint_line(list(s), list(s.values()), colour=each.colour, group=each.name)
        for s in seeds
        if len(seeds) > 1
    ]
    mean = _mean_curve(seeds)
    hover = ["" if y is None else f"{each.name}<br>{say(x, y)}" for x, y in mean.items()]
    front = line(
        list(mean),
        list(mean.values()),
        colour=each.colour,
        group=each.name,
        dash=each.dash,
        hover=hover,
    )
    return [*faint, front]


def _mean_curve(curves: Sequence[Mapping[float, float | None]]) -> dict[float, float | None]:
    """Mean over curves where all of them are known; their grids are one."""
    found: dict[float, float | None] = {}
    for x in curves[0] if curves else ():
        values = [curve.get(x) for curve in curves]
        known = [value for value in values if value is not None]
        found[x] = sum(known) / len(known) if len(known) == len(values) else None
    return found


def _titled(title: str, name: str, key: str, lines: Sequence[Line]) -> str:
    """The title, with the figure behind the curve where there is a single one."""
    evaluations = [e for each in lines for e in each.evaluations]
    if len(evaluations) != 1 or key not in evaluations[0].values:
        return title
    text = f"{title}: {name} {number(evaluations[0].values[key], 4)}"
    interval = evaluations[0].intervals.get(key)
    if interval is None:
        return text
    return f"{text} [{number(interval.lower, 4)}, {number(interval.upper, 4)}]"
