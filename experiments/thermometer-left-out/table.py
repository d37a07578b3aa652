"""What `measure.py` found, as Markdown: means over groups, weighted by tokens, then over seeds.

python experiments/thermometer-left-out/table.py experiments/thermometer-left-out/results
"""

import json
import math
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibtrain.metrics.student import student_half_width

Rows = Mapping[str, Mapping[str, float]]
HEADS = {
    "none": "no temperature",
    "thermometer": "Thermometer, from the other groups",
    "others": "one temperature, from the other groups",
    "own": "one temperature, from the group's own labels",
}


def main() -> None:
    found: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        one = json.loads(path.read_text())
        found.setdefault(one["corpus"], []).append(one)
    for corpus, seeds in found.items():
        groups = [list(each["groups"].values()) for each in seeds]
        count = statistics.fmean(len(each) for each in groups)
        print(f"\n**{corpus}**: {count:.0f} groups, {len(seeds)} seeds\n")
        print("| temperature | its range over groups | nll | ECE | signed gap |")
        print("|---|---|---|---|---|")
        for head, title in HEADS.items():
            temperatures = [rows[head]["temperature"] for each in groups for rows in each]
            cells = [title, f"{min(temperatures):.2f} to {max(temperatures):.2f}"]
            for figure in ("nll", "ece", "signed_gap"):
                own = [_mean(each, head, figure) for each in groups]
                away = [_mean(each, head, figure, "none") for each in groups]
                sign = "+" if figure == "signed_gap" else ""
                text = f"{statistics.fmean(own):{sign}.4f}"
                cells.append(text + ("" if head == "none" else f" ({_interval(away)})"))
            print("| " + " | ".join(cells) + " |")
        print_groups(seeds)
        for figure in ("nll", "ece"):
            for other in ("others", "own"):
                away = [_mean(each, "thermometer", figure, other) for each in groups]
                print(f"\nThermometer less {HEADS[other]}: {figure} {_interval(away)}")
        follows = [_correlation(each) for each in groups]
        print(f"\nCorrelation of log T of Thermometer and own over groups: {_interval(follows)}")


def print_groups(seeds: list[dict[str, Any]]) -> None:
    """Prints a row per group: means over seeds, and what a Thermometer changes."""
    heads = [
        "group",
        "its own T",
        "Thermometer's",
        "nll without",
        "change",
        "ECE without",
        "change",
    ]
    print("\n| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    for name in seeds[0]["groups"]:
        rows = [each["groups"][name] for each in seeds]
        cells = [name]
        for head in ("own", "thermometer"):
            cells.append(f"{statistics.fmean(row[head]['temperature'] for row in rows):.2f}")
        for figure in ("nll", "ece"):
            cells.append(f"{statistics.fmean(row['none'][figure] for row in rows):.4f}")
            cells.append(_interval([r["thermometer"][figure] - r["none"][figure] for r in rows]))
        print("| " + " | ".join(cells) + " |")


def _mean(groups: list[Rows], head: str, figure: str, less: str | None = None) -> float:
    """Returns a figure's mean over groups weighted by tokens, less that of another head if any."""
    values = [rows[head][figure] - (rows[less][figure] if less else 0.0) for rows in groups]
    weights = [rows[head]["tokens"] for rows in groups]
    return sum(map(math.prod, zip(values, weights, strict=True))) / sum(weights)


def _correlation(groups: list[Rows]) -> float:
    pairs = (
        [math.log(rows[head]["temperature"]) for rows in groups] for head in ("thermometer", "own")
    )
    return statistics.correlation(*pairs)


def _interval(values: list[float]) -> str:
    half = student_half_width(values)
    return f"{statistics.fmean(values):+.4f}" + ("" if half is None else f" ±{half:.4f}")


if __name__ == "__main__":
    main()
