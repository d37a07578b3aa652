"""What `benchmarks.growth` found, as a table (Markdown) and a figure (SVG)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.cost import ALLOWED

Found = Sequence[Mapping[str, Any]]

_CLOCKS = {"wall": "seconds", "cpu": "processor seconds"}
_TITLES = {"vocab": "vocabulary V", "context": "context T"}
_WIDTH, _HEIGHT, _MARGIN = 360, 260, 52


def _of(found: Found, series: str) -> Found:
    return [point for point in found if point["series"] == series]


def to_markdown(found: Found, clock: str) -> str:
    """A table a series; deviations are measured over fitted, minus 1."""
    lines = ["# Growth of a step, as measured", "", "Written by `python -m benchmarks.growth`.", ""]
    for series, title in _TITLES.items():
        points = _of(found, series)
        if not points:
            continue
        lines += [
            f"Against the {title}: {_shape(points[0], series)}.",
            "",
            f"| {title} | median {_CLOCKS[clock]} | GFLOPs | GB moved | off a + b FLOPs "
            "| off a + b FLOPs + c bytes | temporaries, MiB |",
            "|---|---|---|---|---|---|---|",
        ]
        for point in points:
            moved = sum(point["bytes_moved"].values())
            cells = [
                f"{point[series]:,}",
                f"{point['seconds']:.4f}",
                f"{point['flops'] / 1e9:.2f}",
                f"{moved / 1e9:.2f}",
                _percent(point["deviation_flops"]),
                _percent(point["deviation_flops_and_bytes"]),
                f"{point['temporary_bytes'] / 2**20:,.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    points = _of(found, "devices")
    if points:
        lines += [
            f"Against devices, of which each computes its rows: {_shape(points[0], 'devices')}.",
            "",
            "| mesh | devices | arguments a device, MiB | temporaries a device, MiB "
            "| GFLOPs a device, compiled | analytic | compiled / analytic |",
            "|---|---|---|---|---|---|---|",
        ]
    for point in points:
        compiled, analytic = point["flops_compiled"], point["flops_analytic"]
        cells = [
            point["mesh"],
            str(point["devices"]),
            f"{point['state_bytes'] / 2**20:.2f}",
            f"{point['temporary_bytes'] / 2**20:.1f}",
            "–" if compiled is None else f"{compiled / 1e9:.3f}",
            f"{analytic / 1e9:.3f}",
            "–" if compiled is None else f"{compiled / analytic:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines).rstrip() + "\n"


def _shape(point: Mapping[str, Any], series: str) -> str:
    names = ("width", "depth", "heads", "rows", "context", "vocab")
    return ", ".join(f"{name} {point[name]:,}" for name in names if name != series)


def _percent(deviation: float) -> str:
    text = f"{100 * deviation:+.0f} %"
    return f"**{text}**" if abs(deviation) > ALLOWED else text


def to_svg(found: Found, clock: str) -> str:
    """Measured medians and both fits, against vocabulary and context, on logarithmic axes."""
    panels = [(series, _of(found, series)) for series in _TITLES if _of(found, series)]
    width = _WIDTH * max(1, len(panels))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {_HEIGHT}" '
        f'width="{width}" height="{_HEIGHT}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{_HEIGHT}" fill="white"/>',
    ]
    for index, (series, points) in enumerate(panels):
        parts.append(f'<g transform="translate({index * _WIDTH} 0)">')
        parts += _panel(series, points, clock)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"]) + "\n"


def _fitted(point: Mapping[str, Any], deviation: str) -> float:
    return point["seconds"] / (1 + point[deviation])


def _axis(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Logarithmic: low .. high onto start .. end."""
    span = math.log(high / low) or 1.0
    return lambda value: start + (end - start) * math.log(value / low) / span


def _short(size: int) -> str:
    return f"{size // 1024}k" if size >= 1024 and size % 1024 == 0 else str(size)


def _panel(series: str, points: Found, clock: str) -> list[str]:
    sizes = [point[series] for point in points]
    measured = [point["seconds"] for point in points]
    lines = {
        "a + b FLOPs": ("#b45309", [_fitted(point, "deviation_flops") for point in points]),
        "a + b FLOPs + c bytes": (
            "#1d4ed8",
            [_fitted(point, "deviation_flops_and_bytes") for point in points],
        ),
    }
    seen = measured + [value for _, values in lines.values() for value in values]
    x = _axis(min(sizes), max(sizes), _MARGIN, _WIDTH - 14)
    y = _axis(min(seen) / 1.2, max(seen) * 1.2, _HEIGHT - 40, 44)
    out = [
        f'<text x="{_MARGIN}" y="16" font-size="12">A step against {_TITLES[series]}, '
        f"{_CLOCKS[clock]}</text>"
    ]
    for size in sizes:
        out.append(
            f'<text x="{x(size):.1f}" y="{_HEIGHT - 22}" text-anchor="middle">{_short(size)}</text>'
        )
    for power in range(
        math.ceil(math.log10(min(seen) / 1.2)), math.floor(math.log10(max(seen) * 1.2)) + 1
    ):
        place = y(10.0**power)
        out.append(
            f'<path d="M{_MARGIN} {place:.1f}H{_WIDTH - 14}" stroke="#ddd"/>'
            f'<text x="{_MARGIN - 6}" y="{place + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    for row, (name, (colour, values)) in enumerate(lines.items()):
        path = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in zip(sizes, values, strict=True))
        out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        out.append(f'<text x="{_MARGIN + 130 * row}" y="32" fill="{colour}">{name}</text>')
    out += [
        f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3.5"/>'
        for a, b in zip(sizes, measured, strict=True)
    ]
    return out
