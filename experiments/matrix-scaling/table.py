"""What `measure.py` found, as Markdown: means over seeds, differences to no head paired by seed.

python experiments/matrix-scaling/table.py experiments/matrix-scaling/results
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from calibtrain.metrics.student import student_half_width

COLUMNS = {
    ("fitted", "nll"): "nll, fitted text",
    ("test", "nll"): "nll, test",
    ("fitted", "ece"): "ECE, fitted text",
    ("test", "ece"): "ECE, test",
    ("test", "signed_gap"): "signed gap, test",
    ("test", "accuracy"): "accuracy, test",
}


def main() -> None:
    found: dict[int, list[dict[str, Any]]] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        one = json.loads(path.read_text())
        found.setdefault(one["vocab_size"], []).append(one)
    for vocab, seeds in sorted(found.items()):
        tokens = statistics.fmean(each["fitted_tokens"] for each in seeds)
        print(f"\n**V = {vocab:,}**, {len(seeds)} seeds, fitted to {tokens:,.0f} tokens\n")
        print("| head | parameters | " + " | ".join(COLUMNS.values()) + " | overfitting |")
        print("|---" * (3 + len(COLUMNS)) + "|")
        for number, row in enumerate(seeds[0]["rows"]):
            cells = [row["head"], f"{row['parameters']:,}"]
            for text, figure in COLUMNS:
                own = [each["rows"][number][text][figure] for each in seeds]
                none = [each["rows"][0][text][figure] for each in seeds]
                sign = "+" if figure == "signed_gap" else ""
                cell = f"{statistics.fmean(own):{sign}.4f}"
                cells.append(cell + (f" ({_difference(own, none)})" if number else ""))
            cells.append(_overfitting(seeds, number) if number else "")
            print("| " + " | ".join(cells) + " |")
        print()
        for one, other in ((2, 1), (3, 1), (3, 2)):
            names = [seeds[0]["rows"][row]["head"] for row in (one, other)]
            line = f"Test, V = {vocab:,}, {names[0]} less {names[1]}:"
            for figure in ("nll", "ece"):
                of = [[each["rows"][row]["test"][figure] for each in seeds] for row in (one, other)]
                line += f" {figure} {_difference(*of)}" + (";" if figure == "nll" else "")
            print(line)


def _overfitting(seeds: list[dict[str, Any]], number: int) -> str:
    """Returns by how much less a head lowers the nll of the test text than of the fitted one."""

    def gap(each: dict[str, Any], place: int) -> float:
        row = each["rows"][place]
        return row["test"]["nll"] - row["fitted"]["nll"]

    return _difference([gap(each, number) for each in seeds], [gap(each, 0) for each in seeds])


def _difference(values: list[float], others: list[float]) -> str:
    away = [a - b for a, b in zip(values, others, strict=True)]
    half = student_half_width(away)
    return f"{statistics.fmean(away):+.4f}" + ("" if half is None else f" ±{half:.4f}")


if __name__ == "__main__":
    main()
