"""The heat maps of agreement as one SVG picture, which follows the viewer's light or dark scheme.

It is written without a browser: a cell is a rectangle whose opacity is the agreement.
"""

import html
from collections.abc import Sequence

from calibtrain.figures.agreement import Document, sample_label, sample_order, shown, width
from calibtrain.figures.style import palette

_CELL, _GAP, _FONT, _LETTER, _TOKENS, _TITLE, _MARGIN = 14, 1, 11, 6.5, 84, 30, 16
_USED = ("raised", "ink", "ink-soft", "grid", "cat-0")


def agreement_svg(document: Document) -> str:
    """Returns a picture of both heat maps, one above the other, as SVG text.

    Args:
        document: what `calibtrain consistency --json` prints.
    """
    order, found = sample_order(document), document["aligned"]
    labels = [sample_label(document, i) for i in order]
    matrix = [[document["matrix"][i][j] for j in order] for i in order]
    side, left = _CELL * len(order), 2 * _MARGIN + int(_LETTER * max(map(width, labels)))
    top = _MARGIN + _TITLE
    parts = [
        _text(_MARGIN, _MARGIN + 12, f"Samples: {document['matrix_of']} of each two", "title"),
        *_cells(matrix, labels, left, top),
    ]
    bottom, columns = top + side, found["columns"]
    if len(order) > 1 and columns:
        title = "Tokens: share of the other samples that have the same one"
        parts.append(_text(_MARGIN, bottom + _MARGIN + 12, title, "title"))
        top = bottom + _MARGIN + _TITLE + _TOKENS
        for place, token in enumerate(columns):
            x = left + _CELL * place + _CELL / 2 + 4
            parts.append(
                f'<g transform="translate({x:g} {top - 6}) rotate(-90)">'
                f"{_text(0, 0, shown(token, 12))}</g>"
            )
        parts += _cells([found["agreement"][i] for i in order], labels, left, top)
        bottom = top + side
    across = left + _MARGIN + max(side, _CELL * len(columns), 300)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{across}" height="{bottom + _MARGIN}" '
        f'viewBox="0 0 {across} {bottom + _MARGIN}" role="img">\n'
        "<title>Agreement between samples</title>\n"
        f"<style>{_colours()}</style>\n"
        '<rect class="page" width="100%" height="100%"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _colours() -> str:
    schemes = [palette(scheme, 0) for scheme in ("light", "dark")]
    light, dark = ("".join(f"--{n}:{colours[n]};" for n in _USED) for colours in schemes)
    return (
        f":root{{{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
        ".page{fill:var(--raised)}.cell{fill:var(--grid)}.on{fill:var(--cat-0)}"
        f"text{{font:{_FONT}px sans-serif;fill:var(--ink-soft)}}"
        ".title{font-size:13px;font-weight:600;fill:var(--ink)}"
    )


def _cells(
    values: Sequence[Sequence[float | None]], labels: Sequence[str], left: int, top: int
) -> list[str]:
    """Returns the cells of a heat map, a label before each row."""
    parts, size = [], _CELL - _GAP
    for row, (own, label) in enumerate(zip(values, labels, strict=True)):
        y = top + _CELL * row
        parts.append(_text(_MARGIN, y + _FONT, label))
        for column, value in enumerate(own):
            if value is None:
                continue
            x = left + _CELL * column
            place = f'x="{x}" y="{y}" width="{size}" height="{size}"'
            parts.append(f'<rect class="cell" {place}/>')
            if value > 0:
                told = f"<title>{value:.2f}</title>"
                parts.append(f'<rect class="on" {place} opacity="{value:.3g}">{told}</rect>')
    return parts


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:g}" y="{y:g}"{named}>{html.escape(text)}</text>'
