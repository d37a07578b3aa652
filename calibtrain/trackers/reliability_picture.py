"""A reliability diagram as a small picture, drawn without a browser or a plotting library."""

import math
from collections.abc import Mapping
from typing import Any

SIZE, MARGIN, SCALE = 420, 44, 3
"""Side of the picture and its margin in pixels; it is drawn larger by SCALE and made smaller."""
INK, SOFT, GRID, COLOUR, SHARE = "#1a1c20", "#565c66", "#e4e6e9", "#0072b2", "#b5d3e7"


def draw_reliability(evaluation: Mapping[str, Any]) -> Any:
    """Returns a picture (`PIL.Image`) of accuracy against confidence in bins.

    A point's area and the bars at the bottom show the share of the events in a bin; a calibrated
    model's points lie on the diagonal.

    Args:
        evaluation: corpus, split, step, figures (with ece and signed_gap), and reliability, a list
            of bins: lower, upper, tokens, confidence, accuracy (None where a bin is empty).
    """
    from PIL import Image, ImageDraw, ImageFont

    side = SIZE * SCALE
    picture = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(picture)
    small, title = (ImageFont.load_default(points * SCALE) for points in (12, 13))

    def at(x: float, y: float) -> tuple[float, float]:
        inner = SIZE - 2 * MARGIN
        return (MARGIN + x * inner) * SCALE, (SIZE - MARGIN - y * inner) * SCALE

    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        draw.line([at(tick, 0), at(tick, 1)], GRID, SCALE)
        draw.line([at(0, tick), at(1, tick)], GRID, SCALE)
        x, y = at(tick, 0)
        draw.text((x, y + 6 * SCALE), f"{tick:.1f}", SOFT, small, anchor="ma")
        x, y = at(0, tick)
        draw.text((x - 6 * SCALE, y), f"{tick:.1f}", SOFT, small, anchor="rm")
    bins = [each for each in evaluation["reliability"] if each["tokens"]]
    total = math.fsum(each["tokens"] for each in bins) or 1.0
    for each in bins:
        left, top = at(each["lower"], 0.25 * each["tokens"] / total)
        right, bottom = at(each["upper"], 0)
        draw.rectangle([left + SCALE, top, right - SCALE, bottom], SHARE)
    draw.line([at(0, 0), at(1, 1)], SOFT, SCALE)
    points = [(each["confidence"], each["accuracy"], each["tokens"] / total) for each in bins]
    draw.line([at(x, y) for x, y, _ in points], COLOUR, 2 * SCALE)
    for x, y, share in points:
        radius = (2.5 + 8 * math.sqrt(share)) * SCALE
        centre = at(x, y)
        draw.ellipse(
            [centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius],
            COLOUR,
            "white",
            SCALE,
        )
    figures = evaluation["figures"]
    said = (
        f"step {evaluation['step']:,}: ECE {figures['ece']:.4f}, gap {figures['signed_gap']:+.4f}"
    )
    draw.text((side / 2, 14 * SCALE), said, INK, title, anchor="ma")
    draw.text((side / 2, (SIZE - 16) * SCALE), "confidence", SOFT, small, anchor="ma")
    draw.text(at(0.01, 1.0), "accuracy", SOFT, small, anchor="la")
    return picture.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
