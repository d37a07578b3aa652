"""What `run.sh` found, as Markdown: means over seeds, differences to no head paired by seed.

python experiments/temperature-heads/table.py runs/temperature-heads
"""

import statistics
import sys
from pathlib import Path

from calibtrain.metrics.quantities import COMPARED, QUANTITIES
from calibtrain.metrics.student import student_half_width
from calibtrain.runs.records import HeadComparisonRecord, HeadRow


def main() -> None:
    found: dict[tuple[str, int, str], dict[str, list[HeadRow]]] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        model, vocab, _ = path.stem.split("-")
        for text in HeadComparisonRecord.read(path).corpora:
            rows = found.setdefault((model, int(vocab), text.corpus), {})
            for row in text.rows:
                rows.setdefault(row.head, []).append(row)
    headings = " | ".join(QUANTITIES[key].heading() for key in COMPARED)
    for (model, vocab, corpus), rows in sorted(found.items()):
        plain = next(iter(rows.values()))
        print(f"\n{model}, V = {vocab:,}, {corpus}-test, {len(plain)} seeds\n")
        print(f"| head | parameters | {headings} |")
        print("|---" * (2 + len(COMPARED)) + "|")
        for head, seeds in rows.items():
            cells = []
            for key in COMPARED:
                text = QUANTITIES[key].plain(statistics.fmean(each.numbers[key] for each in seeds))
                if seeds is not plain:
                    pairs = zip(seeds, plain, strict=True)
                    gap = [a.numbers[key] - b.numbers[key] for a, b in pairs]
                    half = student_half_width(gap)
                    text += f" ({statistics.fmean(gap):+.4f}"
                    text += ")" if half is None else f" ±{half:.4f})"
                cells.append(text)
            print(f"| {head} | {seeds[0].parameters:,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
