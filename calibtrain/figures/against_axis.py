"""Figures of a study against its axis, and of the differences between its settings."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.comparable import Lead, Pair, pairs_of
from calibtrain.figures.display import (
    plural,
    setting_value,
    shown,
    shown_apart,
    shown_range,
    shown_with_half,
)
from calibtrain.figures.grouping import Comparison, Group, Series, X, scale_of, summary_of
from calibtrain.figures.panels import (
    Figure,
    Key,
    Panel,
    around_zero,
    exact_level,
    gap_axis,
    gap_marks,
    plot,
    room_for_level,
    told,
    zero,
)
from calibtrain.figures.style import INK, SOFT
from calibtrain.metrics.quantities import QUANTITIES
from calibtrain.runs.results import StudyResults

AGAINST_AXIS = ("ece", "signed_gap", "bits_per_byte", "entropy_bits_per_byte")
PAIRED = ("ece", "bits_per_byte")
"""The figures whose differences are drawn."""
LONGEST = 24
"""Letters of a pair's name that an axis shows; its hover text and the table show the whole name."""


def lead_figure(study: StudyResults, comparison: Comparison, lead: Lead) -> Figure:
    """Returns the study's first figure: what compares, with the paired differences beside it."""
    name, event = comparison.axis_name.lower(), lead.event
    panels, most = [], 0
    for key in filter(lead.allows, AGAINST_AXIS):
        if not _known(study, lead.evaluation, key):
            continue
        panels.append(_axis_panel(study, comparison, key, lead))
        pairs = pairs_of(study, comparison, lead.evaluation, key)
        known = any(pair.record.half_width.get(key) is not None for pair in pairs)
        if key in PAIRED and known:
            panels.append(_difference_panel(pairs, key, lead))
            most = len(pairs)
    apart = (
        " Differences are paired over the seeds; their intervals hold together at 95 % "
        f"({plural(most, 'pair')}, Bonferroni), and those that exclude 0 are filled."
        if most
        else ""
    )
    title = f"{event.capitalize()} events: calibration and compression" if lead.compares else ""
    return Figure(
        anchor="against",
        title=f"{title or 'Compression'} by {name}",
        caption=_caption(study, comparison, whole=lead.compares) + apart,
        panels=tuple(panels),
        keys=_series_keys(comparison),
        columns="halves" if len(panels) % 3 else "thirds",
    )


def against_axis(
    study: StudyResults, comparison: Comparison, evaluation: str, event: str = "token"
) -> Figure:
    """Returns the means and seeds of one evaluation, with one panel per quantity.

    Args:
        study: the study.
        comparison: its groups and their axis.
        evaluation: name of the evaluation.
        event: the event that it predicts.
    """
    name = comparison.axis_name.lower()
    of = Lead(evaluation, event, compares=False)
    keys = [key for key in AGAINST_AXIS if _known(study, evaluation, key)]
    alone = event == "token" and comparison.axis == "vocabulary"
    caution = (
        " Tokens are different events in every vocabulary, so that only the figures per byte of "
        "text compare between them."
    )
    return Figure(
        anchor=f"against-{event}",
        title=f"By {event}: calibration and compression by {name}",
        caption=_caption(study, comparison) + (caution if alone else ""),
        panels=tuple(_axis_panel(study, comparison, key, of) for key in keys),
        keys=_series_keys(comparison),
        columns="quarters" if len(keys) == 4 else "halves",
    )


def _known(study: StudyResults, evaluation: str, key: str) -> bool:
    return any(
        key in arm.evaluations[evaluation].numbers
        for arm in study.arms
        if evaluation in arm.evaluations
    )


def _caption(study: StudyResults, comparison: Comparison, *, whole: bool = True) -> str:
    seeds = max((s.seeds for s in study.summary), default=1)
    interval = (
        "the bar is the 95 % interval over seeds"
        if seeds > 1
        else "with one seed there is no interval over seeds"
    )
    apart = (
        " Series are set slightly apart so that their bars can be told from each other."
        if len(comparison.series) > 1 and comparison.axis != "category"
        else ""
    )
    meaning = (
        "; lower is better for ECE and bits per byte, and a signed gap of zero means that "
        "confidence equals accuracy on average"
        if whole
        else "; lower is better for bits per byte"
    )
    return (
        f"Each hollow point is one seed, each filled point the mean of its seeds, and {interval}"
        f"{meaning}.{apart}"
    )


def _series_keys(comparison: Comparison) -> tuple[Key, ...]:
    several = comparison.series if len(comparison.series) > 1 else ()
    return tuple(Key(s.name, s.colour, s.dash) for s in several)


def _difference_panel(pairs: Sequence[Pair], key: str, lead: Lead) -> Panel:
    """Returns the paired differences, one below the other, with intervals that hold together."""
    quantity = QUANTITIES[key]
    ends = [pair.ends(key, len(pairs)) for pair in pairs]
    names = [pair.name for pair in pairs]
    short = [_short(pair.short) for pair in pairs]
    said = [
        f"{pair.name}<br>{shown_apart(key, pair.record.mean[key])}"
        + ("" if half is None else f" {shown_range(key, low, high)}")
        for pair, (low, high, half) in zip(pairs, ends, strict=True)
    ]
    clear = [half is not None and (low > 0 or high < 0) for low, high, half in ends]
    marks = go.Scatter(
        x=[pair.record.mean[key] for pair in pairs],
        y=names,
        hovertext=said,
        hoverinfo="text",
        name="difference",
        mode="markers",
        marker={
            "size": 10,
            "color": INK,
            "symbol": ["circle" if each else "circle-open" for each in clear],
            "line": {"width": 1.5},
        },
        error_x={
            "type": "data",
            "array": [half for *_, half in ends],
            "color": SOFT,
            "thickness": 1.5,
            "width": 5,
        },
    )
    across = {**zero(), "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1}
    values = [value for low, high, _ in ends for value in (low, high)]
    unit = f" ({quantity.unit})" if quantity.unit == "bits/byte" else ""
    name = quantity.name if quantity.name.isupper() else quantity.name.lower()
    x = {"title": f"difference of {name}{unit}", "range": around_zero(values), "nticks": 5}
    rows = {"type": "category", "range": [len(pairs) - 0.4, -0.6]}
    y = {"title": "settings", **rows, "tickvals": names, "ticktext": short}
    height = max(300, 90 + (44 if ": " in pairs[0].short else 26) * len(pairs))
    return Panel(
        f"{lead.of_event(key)}: paired differences",
        plot([marks], x=x, y=y, shapes=[across]),
        height=height,
    )


def _short(name: str) -> str:
    """Returns the name of a pair in lines that fit beside a narrow plot."""
    lines = name.split(": ", 1)
    return "<br>".join(x if len(x) <= LONGEST else x[: LONGEST - 1] + "…" for x in lines)


def _axis_panel(study: StudyResults, comparison: Comparison, key: str, of: Lead) -> Panel:
    evaluation = of.evaluation
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
        of.of_event(key),
        plot(traces, x=x_axis(comparison), y=_y_axis(key, values, halves, exact), **marks),
    )


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
        name="single seed",
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
        name="mean over seeds",
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
