"""The figures of a study: against its axis, reliability, along training, by stratum, memory."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.against_axis import against_axis, x_axis
from calibtrain.figures.calibration import Line, ece_by_bin, reliability_panel, training_panel
from calibtrain.figures.curves import curves
from calibtrain.figures.display import memory_bytes, setting_value, shown_with_half
from calibtrain.figures.grouping import Comparison, Group
from calibtrain.figures.panels import Columns, Figure, Key, Panel, memory_ticks, plot
from calibtrain.figures.signatures import mixed_in
from calibtrain.figures.strata_figures import strata_figures
from calibtrain.runs.results import StudyResults
from calibtrain.runs.seeds import mean_and_half_width

PARTS = (
    ("embedding", "Embedding", "var(--cat-0)"),
    ("unembedding", "Unembedding", "var(--cat-3)"),
    ("body", "Body", "var(--cat-6)"),
)
NEEDS = (
    ("logits", "Logits if materialised", "var(--cat-1)"),
    ("peak_temporary", "Peak temporary, as compiled", "var(--cat-0)"),
    ("optimizer", "Optimizer state", "var(--cat-2)"),
    ("parameters", "Parameters", "var(--cat-6)"),
)


def study_figures(study: StudyResults, comparison: Comparison) -> list[Figure]:
    """Every figure for which the study has something to show."""
    lines = lines_of(study, comparison)
    scored = [each for each in lines if each.evaluations]
    trained = [each for each in lines if any(run.measured for run in each.runs)]
    figures = []
    if scored:
        figures.append(against_axis(study, comparison, study.main))
        figures += [
            against_axis(study, comparison, names[0], event)
            for event, names in study.by_event.items()
        ]
        figures.append(_reliability(scored, comparison))
        figures += [figure for figure in (curves(scored, _keys(scored)),) if figure is not None]
    if trained:
        figures.append(_along_training(study, trained, comparison))
    figures += strata_figures(scored, _keys(scored))
    if any(group.run for group in comparison.groups):
        figures.append(_memory(comparison))
    return figures


def lines_of(study: StudyResults, comparison: Comparison) -> list[Line]:
    lines = []
    for group in comparison.groups:
        arms = group.done or group.arms
        lines.append(
            Line(
                name=group.label,
                colour=group.colour,
                dash=group.dash,
                evaluations=tuple(a.scored[study.main] for a in arms if study.main in a.scored),
                runs=tuple(arm.run for arm in arms if arm.run is not None),
            )
        )
    return lines


def _keys(lines: Sequence[Line]) -> tuple[Key, ...]:
    return tuple(Key(each.name, each.colour, each.dash) for each in lines) if lines[1:] else ()


def _mix(lines: Sequence[Line]) -> str:
    """What to say where the lines of a figure have different signatures."""
    return mixed_in([e for each in lines for e in each.evaluations], ("ece",), " ")


def _reliability(lines: Sequence[Line], comparison: Comparison) -> Figure:
    panels = []
    for each in lines:
        ece = shown_with_half("ece", *mean_and_half_width([e.ece for e in each.evaluations]))
        panels.append(
            reliability_panel(f"{each.name}: ECE {ece}", each.evaluations, each.colour, each.name)
        )
    per = "vocabulary" if comparison.axis == "vocabulary" else "setting"
    bins = lines[0].evaluations[0].bins
    return Figure(
        anchor="reliability",
        title=f"Reliability: accuracy against confidence, by {per}",
        caption=f"Points below the dashed diagonal are over-confident, points above it "
        f"under-confident; a point is one of {bins} equal-width bins with its seeds pooled, its "
        "size and the bars beneath give the share of tokens in the bin, thin lines are single "
        "seeds, and the last panel weighs each bin's distance from the diagonal by its share, so "
        f"that the sizes add up to the ECE of the pooled seeds.{_mix(lines)}",
        panels=(*panels, ece_by_bin(lines)),
        keys=_keys(lines),
        columns=_columns(len(panels)) if lines[1:] else "halves",
    )


def _columns(panels: int) -> Columns:
    """The division of a row that leaves the fewest places empty."""
    if panels <= 2:
        return "halves"
    return "quarters" if -panels % 4 < -panels % 3 else "thirds"


def _along_training(study: StudyResults, lines: Sequence[Line], comparison: Comparison) -> Figure:
    exact = study.exact_entropy
    return Figure(
        anchor="training",
        title="Bits per byte, entropy rate and ECE along training",
        caption="Each line is the mean over seeds on the held-out text scored while training, thin "
        "lines are single seeds; for a calibrated model, entropy rate and bits per byte agree."
        + _mix(lines),
        columns="thirds",
        panels=(
            training_panel("Bits per byte", "bits_per_byte", lines, exact=exact),
            training_panel(
                "Entropy rate of the predictions", "entropy_bits_per_byte", lines, exact=exact
            ),
            training_panel("ECE", "ece", lines, exact=None),
        ),
        keys=_keys(lines),
    )


def _memory(comparison: Comparison) -> Figure:
    groups = [g for series in comparison.series for g in series.groups if g.run is not None]
    one = len(comparison.series) == 1
    bars = []
    for part, name, colour in PARTS:
        sizes = [_part_bytes(group, part) for group in groups]
        if any(sizes):
            bars.append(
                go.Bar(
                    x=_bar_places(comparison, groups),
                    y=sizes,
                    marker={"color": colour},
                    legendgroup=name,
                    hovertext=[
                        f"{group.label}<br>{name} {memory_bytes(size)}"
                        for group, size in zip(groups, sizes, strict=True)
                    ],
                    hoverinfo="text",
                )
            )
    totals = [math.fsum(_part_bytes(g, part) for part, _, _ in PARTS) for g in groups]
    lines, needs = [], []
    for need, name, colour in NEEDS:
        for series in comparison.series:
            found = [(g, _need(g, need)) for g in series.groups if g.run is not None]
            needs += [value for _, value in found]
            lines.append(
                go.Scatter(
                    x=[g.x for g, _ in found],
                    y=[value or None for _, value in found],
                    mode="markers" if comparison.axis == "category" else "lines+markers",
                    line={"color": colour, "width": 2, "dash": series.dash},
                    marker={"color": colour, "size": 8},
                    legendgroup=name,
                    hovertext=[f"{g.label}<br>{name} {memory_bytes(value)}" for g, value in found],
                    hoverinfo="text",
                )
            )
    name = comparison.axis_name.lower()
    shown_parts = {bar.legendgroup for bar in bars}
    keys = [Key(n, c, mark="block") for _, n, c in PARTS if n in shown_parts]
    keys += [Key(n, c) for _, n, c in NEEDS]
    return Figure(
        anchor="memory",
        title=f"Memory against {name}",
        caption="First, what the parameters take, part by part (a tied unembedding takes nothing "
        "more); then, on a logarithmic scale, what one training step takes as compiled beside "
        "what tokens × vocabulary logits would take if they were ever held whole.",
        panels=(
            Panel(
                "Parameters, by part",
                plot(
                    bars,
                    x={"title": name, "type": "category" if one else "multicategory"},
                    y={"title": "memory (bytes)", **memory_ticks(totals, log=False)},
                    barmode="stack",
                    bargap=0.35,
                ),
            ),
            Panel(
                "One training step",
                plot(
                    lines,
                    x=x_axis(comparison),
                    y={"title": "memory (bytes, log scale)", **memory_ticks(needs, log=True)},
                ),
            ),
        ),
        keys=tuple(keys),
    )


def _bar_places(comparison: Comparison, groups: Sequence[Group]) -> list[Any]:
    """Where the bars stand: side by side, under the name of their series if there are several."""
    places = [setting_value(group.x) for group in groups]
    if len(comparison.series) == 1:
        return places
    return [[group.series for group in groups], places]


def _part_bytes(group: Group, part: str) -> float:
    run = group.run
    if run is None or not run.record.memory.parameters or not run.record.parameters.total:
        return 0.0
    parameters = run.record.parameters
    return getattr(parameters, part) * run.record.memory.parameters / parameters.total


def _need(group: Group, need: str) -> float | None:
    return None if group.run is None else getattr(group.run.record.memory, need)
