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
    "nll_fitted": "nll, fitted text",
    "nll": "nll, test text",
    "ece": "ECE, test",
    "signed_gap": "signed gap, test",
    "accuracy": "accuracy, test",
}


def main() -> None:
    found: dict[int, list[dict[str, Any]]] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        one = json.loads(path.read_text())
        found.setdefault(one["vocab_size"], []).append(one)
    for vocab, seeds in sorted(found.items()):
        tokens = statistics.fmean(each["fitted_tokens"] for each in seeds)
        print(f"\n**V = {vocab:,}**, {len(seeds)} seeds, fitted to {tokens:,.0f} tokens\n")
        print("| head | parameters | " + " | ".join(COLUMNS.values()) + " |")
        print("|---" * (2 + len(COLUMNS)) + "|")
        for number, row in enumerate(seeds[0]["rows"]):
            cells = [row["head"], f"{row['parameters']:,}"]
            for key in COLUMNS:
                own = [each["rows"][number][key] for each in seeds]
                gaps = [
                    value - each["rows"][0][key] for value, each in zip(own, seeds, strict=True)
                ]
                cells.append(_cell(own, gaps if number else None))
            print("| " + " | ".join(cells) + " |")


def _cell(values: list[float], gaps: list[float] | None) -> str:
    text = f"{statistics.fmean(values):.4f}"
    if gaps is None:
        return text
    half = student_half_width(gaps)
    return f"{text} ({statistics.fmean(gaps):+.4f}" + (")" if half is None else f" ±{half:.4f})")


if __name__ == "__main__":
    main()
