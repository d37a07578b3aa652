"""Surprise and entropy along a traced text, in bits a byte, with the band of held-out text."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from calibtrain.figures.panels import plot

if TYPE_CHECKING:  # a report is read without NumPy and Arrow
    from calibtrain.runs.traces import TraceRecord

SURPRISE, ENTROPY, BAND = "var(--cat-1)", "var(--cat-0)", "var(--cat-6)"
_LOOP = "var(--cat-3)"


def trace_plot(
    record: "TraceRecord",
    text: int = 0,
    *,
    band: Mapping[str, Any] | None = None,
    alarms: Sequence[Mapping[str, Any]] = (),
    window: int = 64,
) -> go.Figure:
    """Returns a plot of surprise and entropy over a window of bytes, along one text of a trace.

    Args:
        record: the trace.
        text: number of the text in it.
        band: the reference band, as `calibtrain trace --json` prints it; its outer quantiles are
            drawn as steps by position.
        alarms: as the same document has them.
        window: bytes that the surprise looks back on, at least; the entropy's is the trace's own.

    Raises:
        ValueError: the record has no such text.
    """
    rows = [row for row in record.table.to_pylist() if row["text"] == text]
    if not rows:
        raise ValueError(f"text: {text} is not in the trace, or has no tokens")
    ends = [row["byte_offset"] + row["bytes"] for row in rows]
    traces: list[Any] = []
    if band is not None:
        traces += _band(band, ends[-1])
    for name, colour, values in (
        ("surprise", SURPRISE, _windowed(rows, window)),
        ("entropy", ENTROPY, [row["entropy_rate_windowed"] for row in rows]),
    ):
        traces.append(
            go.Scatter(
                x=ends,
                y=values,
                name=name,
                mode="lines",
                line={"color": colour, "width": 1.5},
                hovertext=[
                    _told(name, value, row) for value, row in zip(values, rows, strict=True)
                ],
                hoverinfo="text",
            )
        )
    colours = {"derailment": "var(--over)", "collapse": "var(--under)", "loop": _LOOP}
    marks = [
        {
            "type": "line",
            "x0": alarm["byte"],
            "x1": alarm["byte"],
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": colours[alarm["kind"]], "width": 1.5, "dash": "dot"},
        }
        for alarm in alarms
    ]
    notes = [
        {
            "x": alarm["byte"],
            "y": 1,
            "yref": "paper",
            "yanchor": "top",
            "xanchor": "left",
            "text": f"{alarm['kind']} ({alarm['test']})",
            "showarrow": False,
            "textangle": 90,
            "font": {"size": 11, "color": colours[alarm["kind"]]},
        }
        for alarm in alarms
    ]
    return plot(
        traces,
        x={"title": "position (bytes)"},
        y={"title": "bits a byte", "rangemode": "tozero"},
        shapes=marks,
        annotations=notes,
        showlegend=True,
        legend={"orientation": "h", "y": 1.12, "x": 0},
        height=380,
    )


def _band(band: Mapping[str, Any], end: int) -> list[Any]:
    """Returns the area between the outer quantiles, in steps by position."""
    begins = [each["begins"] for each in band["ranges"] if each["begins"] < end]
    steps = [*begins, end]
    found = []
    for place, fill in ((0, None), (-1, "tonexty")):
        values = [each["quantiles"][place] for each in band["ranges"][: len(begins)]]
        found.append(
            go.Scatter(
                x=steps,
                y=[*values, values[-1]],
                name="entropy of held-out text, 90 %",
                mode="lines",
                line={"width": 0, "shape": "hv", "color": BAND},
                fill=fill,
                opacity=0.4,
                showlegend=fill is not None,
                hoverinfo="skip",
            )
        )
    return found


def _windowed(rows: Sequence[Mapping[str, Any]], window: int) -> list[float | None]:
    """Returns the surprise of the latest tokens that have `window` bytes, in bits a byte."""
    found: list[float | None] = []
    bits = [row["surprise_excess"] + row["entropy"] for row in rows]
    first, size, total = 0, 0, 0.0
    for own, row in zip(bits, rows, strict=True):
        total, size = total + own, size + row["bytes"]
        while size - rows[first]["bytes"] >= window:
            total, size, first = total - bits[first], size - rows[first]["bytes"], first + 1
        found.append(total / math.log(2) / size if size else None)
    return found


def _told(name: str, value: float | None, row: Mapping[str, Any]) -> str:
    piece = row["piece"].decode(errors="replace").replace("<", "&lt;")
    shown = "unknown" if value is None else f"{value:.2f} bits a byte"
    return f"{name} {shown}<br>byte {row['byte_offset']:,}: {piece!r}"
