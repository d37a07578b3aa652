"""Figures without bins: the kernel-smoothed reliability curve, and risk against coverage."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.calibration import Line, overlaid
from calibtrain.figures.display import shown, shown_ends
from calibtrain.figures.panels import (
    Figure,
    Key,
    Panel,
    accuracy_axis,
    axis,
    beside_diagonal,
    confidence_axis,
    diagonal,
    plot,
    untold,
)
from calibtrain.metrics.quantities import QUANTITIES, number
from calibtrain.runs.evaluation_records import EvaluationRecord

_FIGURES = ("smooth_calibration_error", "area_under_risk_coverage")
Curve = Mapping[float, float | None]
"""Values by their x coordinate; None where they are not known."""
_RARE = 1e-3
"""Density, relative to the largest, below which the curve is left out, as it has no tokens."""


def curves(lines: Sequence[Line], keys: Sequence[Key] = ()) -> Figure | None:
    """Returns the figure of both curves of every line; None where no evaluation holds any.

    Args:
        lines: one line for a run, or one per combination of settings.
        keys: keys of the lines, where there are several.
    """
    evaluations = [e for each in lines for e in each.evaluations]
    panels = []
    if any(e.smooth_reliability for e in evaluations):
        panels.append(_smooth_panel(lines))
    if any(e.risk_coverage for e in evaluations):
        panels.append(_risk_panel(lines))
    if not panels:
        return None
    seeds = (
        " Lines are means over seeds, thin lines single seeds."
        if any(len(each.evaluations) > 1 for each in lines)
        else ""
    )
    return Figure(
        anchor="curves",
        title="Without bins: smooth reliability, and risk against coverage",
        caption="First, accuracy against confidence, smoothed with the kernel width that SmoothECE "
        "finds, over the density of the tokens; the curve is left out where there are almost no "
        "tokens. Then the error rate of the most confident tokens, against their share of the "
        f"text: the lower it is, the better confidence ranks tokens.{seeds}",
        panels=tuple(panels),
        keys=tuple(keys),
    )


def _smooth_panel(lines: Sequence[Line]) -> Panel:
    traces: list[Any] = [diagonal()]
    for each in lines:
        found = [e for e in each.evaluations if e.smooth_reliability]
        traces += _overlaid(
            each,
            [_smooth(e) for e in found],
            lambda x, y: f"confidence {x:.2f}<br>smoothed accuracy {number(y, 4)}",
        )
        traces.append(
            go.Scatter(
                **untold(_mean_curve([_density(e) for e in found]).items()),
                mode="lines",
                line={"color": each.colour, "width": 1.25, "dash": each.dash},
                fill="tozeroy" if len(lines) == 1 else "none",
                yaxis="y2",
                legendgroup=each.name,
            )
        )
    return Panel(
        _titled("Smooth reliability", "smooth_calibration_error", lines),
        plot(
            traces,
            x=confidence_axis(anchor="y2"),
            y=accuracy_axis("accuracy, smoothed"),
            yaxis2=axis("density", domain=[0, 0.2], nticks=4, rangemode="tozero"),
            annotations=beside_diagonal(),
        ),
        height=360,
    )


def _risk_panel(lines: Sequence[Line]) -> Panel:
    traces: list[Any] = []
    for each in lines:
        tables = [e.risk_coverage for e in each.evaluations if e.risk_coverage]
        seeds: list[Curve] = [{p.coverage: p.risk for p in points} for points in tables]
        traces += _overlaid(each, seeds, lambda x, y: f"the surest {x:.0%}<br>risk {number(y, 4)}")
    foot = {"title": "coverage (share of tokens, surest first)", "range": [-0.02, 1.02]}
    return Panel(
        _titled("Risk against coverage", "area_under_risk_coverage", lines),
        plot(
            traces,
            x={**foot, "tickformat": ".0%", "dtick": 0.2},
            y={"title": "risk (error rate)", "rangemode": "tozero"},
        ),
        height=360,
    )


def _smooth(evaluation: EvaluationRecord) -> Curve:
    points = evaluation.smooth_reliability or []
    least = _RARE * max(point.density for point in points)
    return {p.confidence: p.accuracy if p.density >= least else None for p in points}


def _density(evaluation: EvaluationRecord) -> Curve:
    """Returns the density of tokens by confidence, which integrates to 1."""
    points = evaluation.smooth_reliability or []
    area = sum(
        (b.confidence - a.confidence) * (a.density + b.density) / 2
        for a, b in itertools.pairwise(points)
    )
    return {p.confidence: p.density / (area or 1.0) for p in points}


def _overlaid(each: Line, seeds: Sequence[Curve], say: Any) -> list[Any]:
    mean = _mean_curve(seeds)
    return overlaid(each, [seed.items() for seed in seeds], mean.items(), say) if seeds else []


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """Returns the mean of curves on one grid, where all of them are known."""
    found: dict[float, float | None] = {}
    for x in curves[0] if curves else ():
        values = [curve.get(x) for curve in curves]
        known = [value for value in values if value is not None]
        found[x] = sum(known) / len(known) if len(known) == len(values) else None
    return found


def _titled(title: str, key: str, lines: Sequence[Line]) -> str:
    """Returns the title, with the figure that belongs to the curve if there is only one."""
    evaluations = [e for each in lines for e in each.evaluations]
    if len(evaluations) != 1 or key not in evaluations[0].numbers:
        return title
    value, interval = evaluations[0].numbers[key], evaluations[0].interval(key)
    return f"{title}: {QUANTITIES[key].name} {shown(key, value)}{shown_ends(key, interval)}"
