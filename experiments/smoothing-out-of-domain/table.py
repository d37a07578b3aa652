"""What `measure.py` found, as Markdown: means over seeds, differences paired by seed.

python experiments/smoothing-out-of-domain/table.py experiments/smoothing-out-of-domain/results
"""

import json
import statistics
import sys
from pathlib import Path

from calibtrain.metrics.student import student_half_width

FIGURES = {"nll": "nll", "bits_per_byte": "bits/byte", "ece": "ECE", "signed_gap": "signed gap"}
LOSSES = {"cross_entropy": "plain", "label_smoothing": "smoothed"}
HEADS = {"none": "", "global": ", one temperature"}


def main() -> None:
    found: dict[str, dict[int, dict]] = {loss: {} for loss in LOSSES}
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        one = json.loads(path.read_text())
        found[one["loss"]][one["seed"]] = one["corpora"]
    base = found["cross_entropy"]
    seeds = sorted(base)
    for corpus in base[seeds[0]]:
        print(f"\n**{corpus}**\n")
        print("| labels | " + " | ".join(FIGURES.values()) + " |")
        print("|---" * (1 + len(FIGURES)) + "|")
        for loss, title in LOSSES.items():
            for head, more in HEADS.items():
                cells = [title + more]
                for figure in FIGURES:
                    own = [found[loss][seed][corpus][head][figure] for seed in seeds]
                    plain = [base[seed][corpus]["none"][figure] for seed in seeds]
                    sign = "+" if figure == "signed_gap" else ""
                    text = f"{statistics.fmean(own):{sign}.4f}"
                    if (loss, head) != ("cross_entropy", "none"):
                        away = [a - b for a, b in zip(own, plain, strict=True)]
                        half = student_half_width(away)
                        text += f" ({statistics.fmean(away):+.4f}"
                        text += ")" if half is None else f" ±{half:.4f})"
                    cells.append(text)
                print("| " + " | ".join(cells) + " |")
        print("\nSmoothed labels less plain ones with one temperature:", end="")
        for figure in ("nll", "ece"):
            away = [
                found["label_smoothing"][seed][corpus]["none"][figure]
                - base[seed][corpus]["global"][figure]
                for seed in seeds
            ]
            half = student_half_width(away)
            end = "" if half is None else f" ±{half:.4f}"
            print(
                f" {figure} {statistics.fmean(away):+.4f}{end}",
                end=";" if figure == "nll" else "\n",
            )


if __name__ == "__main__":
    main()
