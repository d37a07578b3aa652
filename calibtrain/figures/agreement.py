"""Heat maps of how far samples of one prompt agree: sample by sample, and token by token."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from calibtrain.figures.display import plain
from calibtrain.figures.panels import Figure, Panel, plot

LOW, HIGH = "var(--grid)", "var(--cat-0)"
"""Colours of no agreement and of full agreement."""
_LABEL = 28  # characters of an answer
_CELL, _LEAST = 16, 160  # pixels of a row and of a plot
_SIGNS = str.maketrans({"\n": "↵", "\r": "↵", "\t": "⇥", " ": "·"})

Document = Mapping[str, Any]
"""What `calibtrain consistency --json` prints."""


def sample_order(document: Document) -> list[int]:
    """Returns the numbers of the samples by answer, the most frequent first, none last.

    Example:
        >>> samples = [{"answer": "b"}, {"answer": None}, {"answer": "a"}, {"answer": "b"}]
        >>> answers = [{"answer": "b", "samples": 2}, {"answer": "a", "samples": 1}]
        >>> sample_order({"samples": samples, "answers": answers})
        [0, 3, 2, 1]
    """
    ranks = {each["answer"]: rank for rank, each in enumerate(document["answers"])}
    answers = [each["answer"] for each in document["samples"]]
    return sorted(range(len(answers)), key=lambda i: (ranks.get(answers[i], len(ranks)), i))


def sample_label(document: Document, number: int) -> str:
    """Returns the number of a sample and its answer, cut where it is long."""
    answer = document["samples"][number]["answer"]
    if answer is None:
        return f"{number}: no answer"
    return f"{number}: {cut(printable(answer), _LABEL)}"


def shown(text: str | None, length: int | None = None) -> str:
    """Returns a text with signs for white space and for what cannot be printed, cut where long.

    Args:
        text: None gives an empty text.
        length: most columns that it takes; None means any number.

    Example:
        >>> shown("the end\\n"), shown("and so it was", 8), shown(None)
        ('the·end↵', 'and·so…', '')
    """
    found = printable((text or "").translate(_SIGNS))
    return found if length is None else cut(found, length)


def printable(text: str) -> str:
    """Returns a text with U+FFFD for every character that cannot be printed."""
    return "".join(each if each.isprintable() else "�" for each in text)


def cut(text: str, length: int) -> str:
    """Returns a text of at most so many columns; one that is cut ends in an ellipsis.

    Example:
        >>> cut("海の果て", 5), cut("the sea", 5), cut("sea", 5)
        ('海の…', 'the…', 'sea')
    """
    if width(text) <= length:
        return text
    while width(text) >= length:
        text = text[:-1]
    return text.rstrip(" ·") + "…"


def width(text: str) -> int:
    """Returns how many columns a text takes: letters of Chinese and Japanese take two."""
    return sum(2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text)


def agreement_figures(document: Document) -> list[Figure]:
    """Returns the two heat maps as figures of a page; of a single sample there is none."""
    if len(document["samples"]) < 2:
        return []
    by_sample, by_token = sample_matrix_plot(document), token_agreement_plot(document)
    found = [
        Figure(
            anchor="samples",
            title="Samples side by side",
            caption=f"How similar each two texts are ({document['matrix_of']}, 0 to 1), in the "
            "order of their answers; lines part samples of different answers.",
            panels=(Panel("Similarity of texts", by_sample, by_sample.layout.height, full=True),),
        )
    ]
    if document["aligned"]["columns"]:
        found.append(
            Figure(
                anchor="tokens",
                title="Samples token by token",
                caption="Each sample is aligned with the one most like all others. A cell is the "
                "share of the other samples that have the same token there; it is blank where the "
                "sample has none. Tokens between columns are not drawn.",
                panels=(Panel("Agreement", by_token, by_token.layout.height, full=True),),
            )
        )
    return found


def sample_matrix_plot(document: Document) -> go.Figure:
    """Returns a heat map of how similar each two samples are, in the order of their answers."""
    order = sample_order(document)
    labels = [plain(sample_label(document, i)) for i in order]
    matrix, texts = document["matrix"], document["samples"]
    told = [
        [
            f"{labels[row]}<br>{labels[column]}<br>{document['matrix_of']}: {matrix[i][j]:.2f}<br>"
            f"{plain(shown(texts[i]['text'], 60))}<br>{plain(shown(texts[j]['text'], 60))}"
            for column, j in enumerate(order)
        ]
        for row, i in enumerate(order)
    ]
    places = list(range(len(order)))
    return plot(
        [_heat_map([[matrix[i][j] for j in order] for i in order], told)],
        x={"title": "sample", "showticklabels": False, **_KIND},
        y={"title": "", "tickvals": places, "ticktext": labels, **_DOWN},
        shapes=_divisions(document, order),
        height=_height(len(order)),
    )


def token_agreement_plot(document: Document) -> go.Figure:
    """Returns a heat map of how many others have the same token, along the central sample."""
    order, found = sample_order(document), document["aligned"]
    labels = [plain(sample_label(document, i)) for i in order]
    agreement, cells = found["agreement"], found["cells"]
    told = [
        [
            f"{label}<br>{plain(shown(cell))}: {share:.0%} of the others have it"
            if share is not None
            else f"{label}<br>no token here"
            for cell, share in zip(cells[i], agreement[i], strict=True)
        ]
        for label, i in zip(labels, order, strict=True)
    ]
    columns = [plain(shown(each, 12)) for each in found["columns"]]
    return plot(
        [_heat_map([agreement[i] for i in order], told)],
        x={
            "title": f"tokens of sample {found['reference']}, the one most like the others",
            "tickvals": list(range(len(columns))),
            "ticktext": columns,
            "tickangle": 90,
            **_KIND,
        },
        y={"title": "", "tickvals": list(range(len(order))), "ticktext": labels, **_DOWN},
        shapes=_divisions(document, order),
        height=_height(len(order)) + 60,
    )


_KIND: Mapping[str, Any] = {"showgrid": False, "ticks": "", "showline": False}
_DOWN: Mapping[str, Any] = {**_KIND, "autorange": "reversed"}


def _heat_map(
    values: Sequence[Sequence[float | None]], told: Sequence[Sequence[str]]
) -> go.Heatmap:
    return go.Heatmap(
        z=values,
        zmin=0,
        zmax=1,
        colorscale=[[0, LOW], [1, HIGH]],
        xgap=1,
        ygap=1,
        hovertext=told,
        hoverinfo="text",
        colorbar={"thickness": 10, "outlinewidth": 0, "tickformat": ".1f"},
    )


def _divisions(document: Document, order: Sequence[int]) -> list[dict[str, Any]]:
    """Returns lines between samples of different answers."""
    answers = [document["samples"][i]["answer"] for i in order]
    places = [i for i in range(1, len(answers)) if answers[i] != answers[i - 1]]
    if len(places) > len(answers) // 2:  # most answers are of one sample
        return []
    line = {"color": "var(--ink-soft)", "width": 1}
    look = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "line": line}
    return [{**look, "y0": i - 0.5, "y1": i - 0.5} for i in places]


def _height(rows: int) -> int:
    return max(_LEAST, 60 + _CELL * rows)
