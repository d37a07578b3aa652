"""The style of figures: palettes for light and dark, and the Plotly template that plots share.

Colours in plots are CSS custom properties, such as `var(--ink)`: a page resolves them for the
reader's scheme when it draws, and `painted` does so where there is no page. The sequential ones
are the same in both schemes, so that a vocabulary has one colour: of a lightness that contrasts
with either background. The categorical ones are those of Okabe and Ito, adjusted for contrast.
"""

import json
import re
from typing import Literal

import plotly.graph_objects as go
import plotly.io as pio

Scheme = Literal["light", "dark"]
NAME = "calibtrain"
"""The name of the registered template."""

CLEAR = "rgba(0,0,0,0)"
INK, SOFT = "var(--ink)", "var(--ink-soft)"
OVER, UNDER = "var(--over)", "var(--under)"

_RAMP = ("5b6ee1", "8f5fd6", "bd4fb0", "d94f6e", "d4662a", "a97c00", "5f8f22")
"""From blue over red to green, each at least 3 to 1 against both backgrounds."""
_CATEGORIES = {
    "light": ("#0072b2", "#d55e00", "#008f68", "#b5558a", "#8a5a00", "#2a93d5", "#6b7280"),
    "dark": ("#56b4e9", "#f0803c", "#2fc79a", "#e08fbb", "#e6b422", "#8ac7f2", "#9aa3af"),
}
_ROLES = (
    "page raised ink ink-soft line grid link over under good warn bad bad-wash",
    "#f7f7f5 #ffffff #1a1c20 #565c66 #d9dbdf #e9eaec #0b5cad #a8420f #0b5cad #0b6b4b #8a5a00 "
    "#a61b1b #fdf0ef",
    "#121418 #1a1d23 #eceef1 #a7aeb9 #363b45 #2a2e36 #7db8f0 #f0956a #7db8f0 #4fd1a1 #e6b422 "
    "#ff8f85 #2d1a1b",
)
"""Names of colours, and their values in the light and in the dark scheme."""


def palette(scheme: Scheme, shades: int) -> dict[str, str]:
    """Returns the colours of a scheme by the name of their custom property.

    Args:
        scheme: light or dark.
        shades: number of sequential colours (`seq-0`, ...), in even steps of lightness.
    """
    names, *colours = (row.split() for row in _ROLES)
    reach = min(1.0, (shades + 2) / 6)
    places = [reach * i / max(shades - 1, 1) for i in range(shades)]
    return {
        **dict(zip(names, colours[scheme == "dark"], strict=True)),
        **{f"seq-{i}": _between(place) for i, place in enumerate(places)},
        **{f"cat-{i}": colour for i, colour in enumerate(_CATEGORIES[scheme])},
    }


def _between(place: float) -> str:
    scaled = place * (len(_RAMP) - 1)
    index = min(int(scaled), len(_RAMP) - 2)
    part = scaled - index
    ends = [[int(_RAMP[i][j : j + 2], 16) for j in (0, 2, 4)] for i in (index, index + 1)]
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(*ends, strict=True))


def painted(figure: go.Figure, scheme: Scheme = "light", shades: int = 8) -> go.Figure:
    """Returns the figure in the colours of a scheme, for a notebook or a file.

    Args:
        figure: a plot of this package.
        scheme: light or dark.
        shades: number of sequential colours that the figure was drawn with.
    """
    colours = palette(scheme, shades)
    text = re.sub(r"var\(--([\w-]+)\)", lambda m: colours[m[1]], figure.to_json() or "")
    found = go.Figure(json.loads(text), skip_invalid=True)
    return found.update_layout(paper_bgcolor=colours["raised"])


_AXIS = {
    "title": {"standoff": 8, "font": {"size": 12, "color": SOFT}},
    "showgrid": True,
    "gridcolor": "var(--grid)",
    "zeroline": False,
    "linecolor": "var(--line)",
    "showline": True,
    "ticks": "outside",
    "ticklen": 4,
    "tickcolor": "var(--line)",
    "automargin": True,
    "exponentformat": "none",
}
TEMPLATE = go.layout.Template(
    layout={
        "paper_bgcolor": CLEAR,
        "plot_bgcolor": CLEAR,
        "font": {"color": SOFT, "size": 12},
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {
            "bgcolor": "var(--raised)",
            "bordercolor": "var(--line)",
            "font": {"color": INK, "size": 12},
            "align": "left",
        },
        "margin": {"l": 8, "r": 14, "t": 10, "b": 8},
        "xaxis": _AXIS,
        "yaxis": _AXIS,
    }
)
"""A template without background, with a thin grid and axes that make room for their labels."""

pio.templates[NAME] = TEMPLATE
