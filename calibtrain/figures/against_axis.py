"""Figures of a study against its axis: ECE, signed gap, bits per byte and entropy rate."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.display import setting_value, shown, shown_with_half
from calibtrain.figures.grouping import Comparison, Group, Series, X, scale_of, summary_of
from calibtrain.figures.panels import (
    Figure,
    Key,
    Panel,
    exact_level,
    gap_axis,
    gap_marks,
    plot,
    room_for_level,
    told,
)
from calibtrain.figures.signatures import mixed_in
from calibtrain.metrics.quantities import QUANTITIES
from calibtrain.runs.results import StudyResults

AGAINST_AXIS = ("ece", "signed_gap", "bits_per_byte", "entropy_bits_per_byte")


def against_axis(
    study: StudyResults, comparison: Comparison, evaluation: str, event: str = "token"
) -> Figure:
    """Returns the means and seeds of one evaluation, with one panel per quantity.

    Args:
        study: the study.
        comparison: its groups and their axis.
        evaluation: name of the evaluation.
        event: the event that it predicts. The figure for tokens is the study's first figure.
    """
    several = len(comparison.series) > 1
    name = comparison.axis_name.lower()
    seeds = max((s.seeds for s in study.summary), default=1)
    interval = (
        "the bar is the 95 % interval over seeds"
        if seeds > 1
        else "with one seed there is no interval over seeds"
    )
    apart = (
        " Series are set slightly apart so that their bars can be told from each other."
        if several and comparison.axis != "category"
        else ""
    )
    scored = [arm.scored[evaluation] for arm in study.arms if evaluation in arm.scored]
    keys = [key for key in AGAINST_AXIS if any(key in row.numbers for row in scored)]
    tokens = event == "token"
    return Figure(
        anchor="against" if tokens else f"against-{event}",
        title=f"Calibration and compression against {name}{'' if tokens else f', by {event}'}",
        caption=f"Each hollow point is one seed, each filled point the mean of its seeds, and "
        f"{interval}; lower is better for ECE and bits per byte, and a signed gap of zero means "
        f"that confidence equals accuracy on average.{apart}{mixed_in(scored, keys, ' ')}",
        panels=tuple(_axis_panel(study, comparison, key, evaluation, event) for key in keys),
        keys=tuple(Key(s.name, s.colour, s.dash) for s in comparison.series) if several else (),
    )


def _axis_panel(
    study: StudyResults, comparison: Comparison, key: str, evaluation: str, event: str
) -> Panel:
    traces, values, halves = [], [], []
    for index, series in enumerate(comparison.series):
        shift = index - (len(comparison.series) - 1) / 2
        seeds = [
            (group, arm.evaluations[evaluation].numbers[key], arm.record.name)
            for group in series.groups
            for arm in group.arms
            if evaluation in arm.evaluations and key in arm.evaluations[evaluation].numbers
        ]
        values += [value for _, value, _ in seeds]
        means = [
            (group, row.mean[key], row.half_width.get(key), row.seeds)
            for group in series.groups
            if (row := summary_of(study, group, evaluation)) and key in row.mean
        ]
        halves += [half for _, _, half, _ in means]
        traces += _axis_traces(comparison, series, shift, key, seeds, means)
    quantity = QUANTITIES[key]
    exact = study.exact_entropy if quantity.unit == "bits/byte" else None
    marks = gap_marks(key)
    if exact is not None:
        marks["shapes"].append(exact_level(exact))
    return Panel(
        f"{_of_event(key, event)}{quantity.name} against {comparison.axis_name.lower()}",
        plot(traces, x=x_axis(comparison), y=_y_axis(key, values, halves, exact), **marks),
    )


def _of_event(key: str, event: str) -> str:
    """Returns the name of a figure; events other than tokens are named, unless it is per byte."""
    return "" if event == "token" or QUANTITIES[key].unit == "bits/byte" else f"By {event}: "


def _y_axis(
    key: str, values: Sequence[float], halves: Sequence[float | None], exact: float | None
) -> dict[str, Any]:
    unit = QUANTITIES[key].unit
    if key == "signed_gap":
        return gap_axis(values, halves)
    if key == "ece":
        return {"title": f"ECE ({unit})", "rangemode": "nonnegative", **_from_zero(values, halves)}
    reach = max((half for half in halves if half is not None), default=0.0)
    ends = [value + side * reach for value in values for side in (-1, 1)]
    return {"title": unit, **room_for_level(exact, ends)}


def _axis_traces(
    comparison: Comparison,
    series: Series,
    shift: float,
    key: str,
    seeds: Sequence[tuple[Group, float, str]],
    means: Sequence[tuple[Group, float, float | None, int]],
) -> list[go.Scatter]:
    one = len(comparison.series) == 1

    def place(group: Group) -> X:
        return _place(comparison, group.x, shift)

    def look(group: Group) -> str:
        return group.colour if one else series.colour

    name = QUANTITIES[key].name
    points = go.Scatter(
        **told(
            (place(group), value, f"{arm}<br>{name} {shown(key, value)}")
            for group, value, arm in seeds
        ),
        mode="markers",
        marker={
            "symbol": "circle-open",
            "size": 10,
            "color": [look(group) for group, _, _ in seeds],
            "line": {"width": 1.5},
        },
        opacity=0.75,
        legendgroup=series.name,
    )
    bars = {"color": series.colour, "thickness": 1.5, "width": 5}
    mean = go.Scatter(
        **told(
            (
                place(group),
                value,
                f"{group.label}<br>{name} {shown_with_half(key, value, half)}"
                + (f" (95 %, {n} seeds)" if half is not None else ""),
            )
            for group, value, half, n in means
        ),
        mode="markers" if comparison.axis == "category" else "lines+markers",
        line={"color": series.colour, "width": 2, "dash": series.dash},
        marker={
            "size": 8,
            "color": [look(group) for group, *_ in means],
            "line": {"color": "var(--raised)", "width": 1},
            "opacity": 1,
        },
        error_y={"type": "data", "array": [half for _, _, half, _ in means], **bars},
        legendgroup=series.name,
    )
    return [mean, points]


def _from_zero(values: Sequence[float], halves: Sequence[float | None]) -> dict[str, Any]:
    reach = max((h for h in halves if h is not None), default=0.0)
    top = max(values, default=0.0) + reach
    return {"range": [0, top * 1.08]} if top > 0 and math.isfinite(top) else {}


def _place(comparison: Comparison, x: X, shift: float) -> X:
    if comparison.axis == "category" or isinstance(x, str) or not shift:
        return x
    places = [float(g.x) for g in comparison.groups]
    if _scale(comparison) == "log":
        return x * 1.05**shift
    return x + shift * 0.02 * (max(places) - min(places))


def _scale(comparison: Comparison) -> str:
    if comparison.axis == "category":
        return "category"
    if comparison.axis == "vocabulary":
        return "log"
    return scale_of(float(g.x) for g in comparison.groups)


def x_axis(comparison: Comparison) -> dict[str, Any]:
    """Returns the x axis of a plot against the study's axis."""
    scale, name = _scale(comparison), comparison.axis_name.lower()
    if scale == "category":
        return {"title": name, "type": scale, "range": [-0.5, len(comparison.groups) - 0.5]}
    if comparison.axis == "vocabulary":
        name += " (tokens, log₂ scale)"
    places = sorted({g.x for g in comparison.groups if not isinstance(g.x, str)})
    found: dict[str, Any] = {"title": name}
    if len(places) <= 8:
        found |= {"tickvals": places, "ticktext": [setting_value(x) for x in places]}
    elif scale == "log":
        octaves = math.ceil(math.log2(places[-1] / places[0]) / 7)
        found["dtick"] = math.log10(2) * octaves
    if scale == "log":
        low, high = math.log10(places[0]), math.log10(places[-1])
        room = max(0.07 * (high - low), 0.06)
        found |= {"type": "log", "range": [low - room, high + room]}
    return found
