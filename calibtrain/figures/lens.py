"""Entropy after every layer: a map of layers by tokens, and profiles of labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.display import headed, plain
from calibtrain.figures.panels import Figure, Panel, plot
from calibtrain.metrics.quantities import number
from calibtrain.runs.instrument_records import LensRecord
from calibtrain.storage.byte_pieces import spelled_piece

TOKENS = 2000
"""Tokens that a map shows, at most."""
_TICKS = 80  # more pieces than these cannot be read along an axis


def lens_figure(record: LensRecord) -> Figure:
    """Returns the map of layers and tokens; of labelled texts, the profiles of their labels."""
    about = f"Step {record.step:,}{headed(record.head)}."
    document = record.document()
    if not record.labelled:
        drawn = lens_plot(document)
        return Figure(
            anchor="lens",
            title="Entropy after every layer",
            caption="Entropy of what each layer would predict in the place of a token, in nats; "
            f"the last layer, on top, is the model's own prediction. {about}",
            panels=(Panel("Layers by tokens", drawn, height=drawn.layout.height, full=True),),
        )
    said = []
    for name, each in record.separation.items():
        ends = f"[{number(each['lower'], 3)}, {number(each['upper'], 3)}]"
        said.append(
            f"{name}: area under ROC {number(each['area'], 3)}, of guesses "
            f"{number(each['dummy_area'], 3)}, difference {ends}"
        )
    drawn = profile_plot(document)
    return Figure(
        anchor="lens-labels",
        title="Entropy after every layer, by label",
        caption="Mean entropy after each layer of the texts of each label, and how well nearest "
        f"neighbours tell labels from profiles ({'; '.join(said)}). {about}",
        panels=(Panel("Profiles", drawn, height=drawn.layout.height, full=True),),
    )


def lens_plot(document: Mapping[str, Any], name: str = "shannon") -> go.Figure:
    """Returns a map of layers by tokens, coloured by the entropy in nats, the last layer on top.

    Texts stand beside each other, with a gap between them.

    Args:
        document: as `calibtrain lens --json` prints it, of texts without labels.
        name: of the entropy.

    Raises:
        ValueError: the document has no such entropy, or no tokens.
    """
    layers = document["layers"]
    columns: list[tuple[str, str, Sequence[float | None]]] = []
    for count, text in enumerate(document["texts"]):
        if count and columns:
            columns.append(("", "", [None] * layers))
        for place, row in enumerate(text.get("rows", ())):
            if name not in row["entropy"]:
                raise ValueError(f"name: {name!r} is not in the document")
            piece = plain(spelled_piece(row))
            shown = f"text {count}, token {place}: {piece}"
            columns.append((piece, shown, row["entropy"][name]))
    if not columns:
        raise ValueError("document: holds no tokens")
    columns = columns[:TOKENS]
    cells = [[column[2][layer] for column in columns] for layer in range(layers)]
    told = [
        [
            ""
            if column[2][layer] is None
            else f"{column[1]}<br>layer {layer + 1}: {column[2][layer]:.3f} nats"
            for column in columns
        ]
        for layer in range(layers)
    ]
    ticks: dict[str, Any] = {}
    if len(columns) <= _TICKS:
        ticks = {
            "tickvals": list(range(len(columns))),
            "ticktext": [piece for piece, _, _ in columns],
            "tickangle": 90,
        }
    return plot(
        [
            go.Heatmap(
                z=cells,
                y=list(range(1, layers + 1)),
                hovertext=told,
                hoverinfo="text",
                colorscale=[[0, "var(--raised)"], [1, "var(--cat-0)"]],
                zmin=0,
                colorbar={"title": {"text": "nats"}, "thickness": 12},
            )
        ],
        x={"title": "token", "showgrid": False, **ticks},
        y={"title": "layer", "showgrid": False, **({"dtick": 1} if layers <= 40 else {})},
        height=max(320, 18 * layers + 180),
    )


def profile_plot(document: Mapping[str, Any], name: str = "shannon") -> go.Figure:
    """Returns the mean entropy after each layer of the texts of each label, in nats.

    Args:
        document: as `calibtrain lens --json` prints it, of labelled texts.
        name: of the entropy.

    Raises:
        ValueError: the document has no such entropy, or no labels.
    """
    own: dict[str, list[Sequence[float]]] = {}
    for text in document["texts"]:
        if "label" not in text:
            raise ValueError("document: its texts have no labels")
        if name not in text["profile"]:
            raise ValueError(f"name: {name!r} is not in the document")
        own.setdefault(text["label"], []).append(text["profile"][name])
    layers = list(range(1, document["layers"] + 1))
    traces = [
        go.Scatter(
            x=layers,
            y=[sum(each) / len(each) for each in zip(*profiles, strict=True)],
            name=plain(f"{label} ({len(profiles)})"),
            mode="lines+markers",
            line={"color": f"var(--cat-{place % 7})", "width": 2},
        )
        for place, (label, profiles) in enumerate(sorted(own.items()))
    ]
    return plot(
        traces,
        x={"title": "layer", "dtick": 1} if len(layers) <= 40 else {"title": "layer"},
        y={"title": "mean entropy (nats)", "rangemode": "tozero"},
        showlegend=True,
        legend={"orientation": "h", "y": 1.12, "x": 0},
        height=380,
    )
