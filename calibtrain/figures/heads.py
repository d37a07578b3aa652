"""The figure of `temperature compare`: what each temperature head changes."""

from collections.abc import Sequence

import plotly.graph_objects as go

from calibtrain.figures.panels import Figure, Panel, interval_bars, plot, told, zero
from calibtrain.figures.style import SOFT
from calibtrain.metrics.quantities import number
from calibtrain.runs.records import HeadComparisonRecord, HeadRow


def heads_figure(found: HeadComparisonRecord) -> Figure | None:
    """Returns the differences from no head in NLL and ECE; None where there are none."""
    panels = []
    for corpus in found.corpora:
        rows = [row for row in corpus.rows if row.differences]
        if rows:
            panels.append(_panel(f"NLL: {corpus.name}", "nats/token", rows, "nll"))
            panels.append(_panel(f"ECE: {corpus.name}", "difference of ECE", rows, "ece"))
    if not panels:
        return None
    return Figure(
        anchor="heads",
        title="What each temperature head changes",
        caption="Figures with a head less those without, on the same documents, with 95 % "
        "intervals. Below 0 is better. Read both: the NLL says whether predictions became better, "
        "the ECE whether confidence fits accuracy.",
        panels=tuple(panels),
    )


def _panel(title: str, unit: str, rows: Sequence[HeadRow], key: str) -> Panel:
    found = [(row.head, (row.differences or {}).get(key)) for row in rows]
    known = [(name, each) for name, each in found if each is not None]
    marks = go.Scatter(
        **told(
            (
                name,
                each.difference,
                f"{name}<br>{number(each.difference, 4, signed=True)} "
                f"[{number(each.lower, 4, signed=True)}, {number(each.upper, 4, signed=True)}]",
            )
            for name, each in known
        ),
        mode="markers",
        marker={"color": "var(--cat-0)", "size": 9},
    )
    ends = [(name, (each.lower, each.upper)) for name, each in known]
    bars = interval_bars(ends, colour=SOFT, group="difference")
    return Panel(
        title, plot([bars, marks], x={"title": "head"}, y={"title": unit}, shapes=[zero()])
    )
