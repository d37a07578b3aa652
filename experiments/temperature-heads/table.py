"""What `run.sh` found, as Markdown: means over seeds, differences to no head paired by seed.

python experiments/temperature-heads/table.py runs/temperature-heads
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from calibtrain.metrics.student import student_half_width

FIGURES = (
    ("nll", "nll", ".4f"),
    ("bits_per_byte", "bits/byte", ".4f"),
    ("ece", "ECE", ".4f"),
    ("smooth_calibration_error", "SmoothECE", ".4f"),
    ("signed_gap", "signed gap", "+.4f"),
)


def main() -> None:
    found: dict[tuple[str, int, str], dict[str, list[Any]]] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        model, vocab, _ = path.stem.split("-")
        for text in json.loads(path.read_text())["corpora"]:
            rows = found.setdefault((model, int(vocab), text["corpus"]), {})
            for row in text["rows"]:
                rows.setdefault(row["head"], []).append(row)
    for (model, vocab, corpus), rows in sorted(found.items()):
        plain = next(iter(rows.values()))
        print(f"\n{model}, V = {vocab:,}, {corpus}-test, {len(plain)} seeds\n")
        print("| head | parameters | " + " | ".join(title for _, title, _ in FIGURES) + " |")
        print("|---" * (2 + len(FIGURES)) + "|")
        for head, seeds in rows.items():
            cells = []
            for figure, _, form in FIGURES:
                text = f"{statistics.fmean(each[figure] for each in seeds):{form}}"
                if seeds is not plain:
                    gap = [a[figure] - b[figure] for a, b in zip(seeds, plain, strict=True)]
                    half = student_half_width(gap)
                    text += f" ({statistics.fmean(gap):+.4f}"
                    text += ")" if half is None else f" ±{half:.4f})"
                cells.append(text)
            print(f"| {head} | {seeds[0]['parameters']:,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
