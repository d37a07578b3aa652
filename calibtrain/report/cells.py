"""What tables are made of. Cells show rounded numbers; exact ones are in `data-` attributes."""

import json
from collections.abc import Callable, Iterable, Sequence
from html import escape

from calibtrain.report.results import Interval


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, quiet: bool = False
) -> str:
    """A table that scrolls inside its own box. Head and cells are HTML already.

    A `quiet` caption is for listeners only: the heading above the table has said it to readers.
    """
    titles = "".join(head)
    said = "" if quiet else f'<p class="caption">{escape(caption)}</p>'
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return (
        f'{said}<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def th(text: str, unit: str = "", *, numeric: bool = False) -> str:
    """A column's title with its unit beneath."""
    below = f"<small>{escape(unit)}</small>" if unit else ""
    kind = ' class="num"' if numeric else ""
    return f'<th scope="col"{kind}>{escape(text)}{below}</th>'


def row_head(text: str) -> str:
    """The cell that names its row."""
    return f'<th scope="row">{escape(text)}</th>'


def td(text: str) -> str:
    """A cell of text."""
    return f"<td>{escape(text)}</td>"


def prose(text: str) -> str:
    """A cell of text that may take several lines."""
    return f'<td class="prose">{escape(text)}</td>'


def num(
    value: float | None, text: str, half: float | None = None, half_text: str = "", why: str = ""
) -> str:
    """A cell of a number: rounded to the eye, exact in its title and in `data-value`.

    Args:
        value: the number.
        text: how it is shown.
        half: half width of its interval.
        half_text: how that is shown.
        why: for a figure that has no interval, the reason, which is said on hover.
    """
    if value is None:
        return _nothing("")
    exact = escape(json.dumps(value))
    if half is None:
        title = f"{exact}; {escape(why)}" if why else exact
        return f'<td class="num" data-value="{exact}" title="{title}">{escape(text)}</td>'
    width = escape(json.dumps(half))
    return (
        f'<td class="num" data-value="{exact}" data-half-width="{width}" '
        f'title="{exact} ± {width}">{escape(text)}'
        f'<span class="half">±&#8202;{escape(half_text)}</span></td>'
    )


def estimate(
    value: float | None, show: Callable[[float], str], interval: Interval | None, why: str
) -> str:
    """A cell of a figure with its 95 % interval over documents beneath; without, it says why."""
    if value is None:
        return _nothing(why)
    exact, text = escape(json.dumps(value)), escape(show(value))
    if interval is None:
        return f'<td class="num" data-value="{exact}" title="{exact}; {escape(why)}">{text}</td>'
    low, high = (escape(json.dumps(end)) for end in (interval.lower, interval.upper))
    ends = f"[{escape(show(interval.lower))}, {escape(show(interval.upper))}]"
    return (
        f'<td class="num" data-value="{exact}" data-lower="{low}" data-upper="{high}" '
        f'title="{exact}, 95 % interval over documents {low} to {high} '
        f'({escape(interval.method)})">{text}<span class="half">{ends}</span></td>'
    )


def _nothing(why: str) -> str:
    title = f' title="{escape(why)}"' if why else ""
    return f'<td class="num"{title}>–</td>'


def explained(name: str, meaning: str, *, short: bool = False) -> str:
    """The cell that names its row and says in a line (a `short` one: in a few words) what it is."""
    kind = "titled" if short else "explained"
    return f'<th scope="row" class="{kind}">{escape(name)}<small>{escape(meaning)}</small></th>'


def note(text: str) -> str:
    """A line of small print; nothing for an empty one."""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def folded(title: str, *content: str) -> str:
    """What opens when asked for; nothing where there is nothing."""
    inner = "".join(content)
    return f"<details><summary>{escape(title)}</summary>{inner}</details>" if inner else ""


def code(text: str, *, shorten: int | None = None) -> str:
    """A cell of a hash or a path; shortened ones keep the whole in their title."""
    short = text if shorten is None or len(text) <= shorten else text[:shorten] + "…"
    return f'<td><code title="{escape(text)}">{escape(short)}</code></td>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Name and value pairs; values are HTML already."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f'<dl class="facts">{items}</dl>'


def joined(values: Iterable[object]) -> str:
    """The distinct values, comma by comma."""
    return escape(", ".join(dict.fromkeys(str(value) for value in values)))


def section(anchor: str, title: str, *content: str, kind: str = "") -> str:
    """A section of the page, with its heading."""
    attribute = f' class="{kind}"' if kind else ""
    inner = "".join(content)
    return f'<section id="{anchor}"{attribute}><h2>{escape(title)}</h2>{inner}</section>'
