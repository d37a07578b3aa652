"""Formats numbers and settings for a reader: rounding, units, names."""

import html
import math
from collections.abc import Mapping
from typing import Any

from calibtrain.metrics.quantities import NOTHING, QUANTITIES, number
from calibtrain.runs.evaluation_records import IntervalRecord


def shown(key: str, value: float | None) -> str:
    """Returns a figure rounded for reading; signed quantities always have a sign."""
    return QUANTITIES[key].show(value)


def shown_half(key: str, half: float) -> str:
    """Returns a half width, which has no sign."""
    return QUANTITIES[key].show_half(half)


def shown_with_half(key: str, value: float | None, half: float | None) -> str:
    """Returns a mean with the half width of its interval, if it has one."""
    return shown(key, value) + ("" if half is None else f" ± {shown_half(key, half)}")


def shown_ends(key: str, interval: IntervalRecord | None) -> str:
    """Returns the ends of an interval, such as ` [0.0100, 0.0200]`; "" without an interval."""
    if interval is None:
        return ""
    return f" [{shown(key, interval.lower)}, {shown(key, interval.upper)}]"


def headed(head: str | None) -> str:
    """Returns what a caption says of the temperature head that divided the logits, if any did."""
    return "" if head is None else f", temperature head {head}"


def shown_apart(key: str, difference: float) -> str:
    """Returns a difference of a figure, which always has a sign."""
    return number(difference, QUANTITIES[key].decimals, signed=True)


def shown_range(key: str, low: float, high: float) -> str:
    """Returns the ends of a difference's interval, such as `[−0.0020, +0.0100]`."""
    return f"[{shown_apart(key, low)}, {shown_apart(key, high)}]"


def plain(text: str) -> str:
    """Returns a text that Plotly draws as it is, where it would take parts of it for HTML.

    A label of ours in bold is therefore never equal to one that a user gave.

    Example:
        >>> plain("<b>all</b> & more")
        '&lt;b&gt;all&lt;/b&gt; &amp; more'
    """
    return html.escape(text, quote=False)  # it does not know &quot;


def count(value: float | None) -> str:
    """Returns a whole number with thousands separators."""
    return NOTHING if value is None else number(value, 0)


def compact(value: float) -> str:
    """Returns a count in about four characters: 812, 1.2 k, 34 M."""
    return _scaled(value, 1000.0, ("", " k", " M", " G", " T", " P", " E"))


def text_bytes(value: float | None) -> str:
    """Returns an amount of text in decimal units: 3.0 MB."""
    if value is None:
        return NOTHING
    return _scaled(value, 1000.0, (" B", " kB", " MB", " GB", " TB", " PB"))


def memory_bytes(value: float | None) -> str:
    """Returns an amount of memory in binary units: 12.5 MiB."""
    if value is None:
        return NOTHING
    return _scaled(value, 1024.0, (" B", " KiB", " MiB", " GiB", " TiB", " PiB"))


def _scaled(value: float, base: float, units: tuple[str, ...]) -> str:
    if not math.isfinite(value):
        return "not finite"
    power = 0
    while abs(value) >= base * 0.9995 and power < len(units) - 1:
        value /= base
        power += 1
    decimals = 0 if power == 0 or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    text = f"{value:,.{decimals}f}"
    if decimals:
        text = text.rstrip("0").rstrip(".")
    return text + units[power]


def duration(seconds: float | None) -> str:
    """Returns a time in its two largest units."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def setting_name(path: str) -> str:
    """Returns the last part of a dotted path, in words."""
    return path.rsplit(".", 1)[-1].replace("_", " ")


def setting_value(value: Any) -> str:
    """Returns a configuration value as a reader would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        kind, rest = value.get("kind"), {k: v for k, v in value.items() if k != "kind"}
        said = ", ".join(f"{setting_name(k)} {setting_value(v)}" for k, v in rest.items())
        if kind is None:
            return said
        return f"{setting_name(kind)} ({said})" if said else setting_name(kind)
    if isinstance(value, list | tuple):
        return " + ".join(map(setting_value, value)) or "none"
    return str(value)


def plural(amount: int, one: str, many: str | None = None) -> str:
    """Returns an amount and its noun: `3 seeds`, `1 seed`."""
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"
