"""Memory of a training step: the parts of one run, or of a study's groups."""

import math

import plotly.graph_objects as go

from calibtrain.figures.against_axis import x_axis
from calibtrain.figures.display import memory_bytes, setting_value
from calibtrain.figures.grouping import Comparison
from calibtrain.figures.panels import Figure, Key, Panel, memory_ticks, plot, told
from calibtrain.runs.records import RunRecord

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


def run_memory(run: RunRecord) -> Figure:
    """Returns the figure of a run's memory by purpose; the run's memory must be known."""
    memory = run.memory
    rows = [
        *((name, _part_bytes(run, part), colour) for part, name, colour in PARTS),
        ("Optimizer state", memory.optimizer, "var(--cat-2)"),
        ("Peak temporary", memory.peak_temporary, "var(--cat-5)"),
        ("Logits if materialised", memory.logits, "var(--cat-1)"),
    ]
    kept = [(name, size, colour) for name, size, colour in rows if size]
    sizes = [size for _, size, _ in kept]
    names = [f"{name}<br>{memory_bytes(size)}" for name, size, _ in kept]
    bars = go.Bar(
        x=sizes,
        y=names,
        hovertext=names,
        hoverinfo="text",
        orientation="h",
        marker={"color": [colour for _, _, colour in kept]},
    )
    ticks = memory_ticks(sizes, log=False, most=4)
    foot = {"title": "memory (bytes)", **ticks, "range": [0, max(sizes) * 1.05]}
    drawn = plot([bars], x=foot, y={"title": "use", "autorange": "reversed"}, bargap=0.35)
    return Figure(
        anchor="memory",
        title="Memory of one training step",
        caption="Memory of parameters, optimizer and the step's temporaries as compiled, beside "
        "that of tokens × vocabulary logits if they were ever held whole.",
        panels=(Panel("Bytes, by use", drawn, height=80 + 46 * len(kept)),),
    )


def study_memory(comparison: Comparison) -> Figure:
    """Returns the figure of memory against a study's axis: parameters by part, and a whole step."""
    name = comparison.axis_name.lower()
    parts, keys = _parts_panel(comparison)
    return Figure(
        anchor="memory",
        title=f"Memory against {name}",
        caption="First, the memory of the parameters by part (a tied unembedding takes no more); "
        "then, on a logarithmic scale, the memory of one training step as compiled, beside that "
        "of tokens × vocabulary logits if they were ever held whole.",
        panels=(parts, _step_panel(comparison)),
        keys=(*keys, *(Key(name, colour) for _, name, colour in NEEDS)),
    )


def _parts_panel(comparison: Comparison) -> tuple[Panel, list[Key]]:
    runs = [(g, g.run.record) for series in comparison.series for g in series.groups if g.run]
    one = len(comparison.series) == 1
    names = [setting_value(group.x) for group, _ in runs]
    # Bars are grouped by series if there are several.
    places = names if one else [[group.series for group, _ in runs], names]
    bars, keys = [], []
    for part, name, colour in PARTS:
        sizes = [_part_bytes(run, part) for _, run in runs]
        if any(sizes):
            points = [
                (group.x, size, f"{group.label}<br>{name} {memory_bytes(size)}")
                for (group, _), size in zip(runs, sizes, strict=True)
            ]
            look = {"marker": {"color": colour}, "legendgroup": name}
            bars.append(go.Bar({**told(points), "x": places, **look}))
            keys.append(Key(name, colour, mark="block"))
    totals = [math.fsum(_part_bytes(run, part) for part, _, _ in PARTS) for _, run in runs]
    drawn = plot(
        bars,
        x={"title": comparison.axis_name.lower(), "type": "category" if one else "multicategory"},
        y={"title": "memory (bytes)", **memory_ticks(totals, log=False)},
        barmode="stack",
        bargap=0.35,
    )
    return Panel("Parameters, by part", drawn), keys


def _step_panel(comparison: Comparison) -> Panel:
    traces, sizes = [], []
    for need, name, colour in NEEDS:
        for series in comparison.series:
            found = [(g, getattr(g.run.record.memory, need)) for g in series.groups if g.run]
            sizes += [size for _, size in found]
            traces.append(
                go.Scatter(
                    **told(
                        (g.x, size or None, f"{g.label}<br>{name} {memory_bytes(size)}")
                        for g, size in found
                    ),
                    mode="markers" if comparison.axis == "category" else "lines+markers",
                    line={"color": colour, "width": 2, "dash": series.dash},
                    marker={"color": colour, "size": 8},
                    legendgroup=name,
                )
            )
    ticks = memory_ticks(sizes, log=True)
    y = {"title": "memory (bytes, log scale)", **ticks}
    return Panel("One training step", plot(traces, x=x_axis(comparison), y=y))


def _part_bytes(run: RunRecord, part: str) -> float:
    """Returns the memory of a part of the parameters."""
    if not run.memory.parameters or not run.parameters.total:
        return 0.0
    return getattr(run.parameters, part) * run.memory.parameters / run.parameters.total
