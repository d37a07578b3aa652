"""Information minus entropy of human and generated text by vocabulary, as Markdown.

python experiments/typicality/typicality.py runs/quickstart/*/ --judge runs/large

A run that has no analysis/typicality-*.json of the corpus and split yet is measured first.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import kinds, over_seeds, print_table

from calibtrain import figures
from calibtrain.analysis.typicality import Protocol, measure_typicality
from calibtrain.runs.analysis_records import TypicalityRecord


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--split", default="test")
    parser.add_argument("--prompts", type=int, default=Protocol.prompts)
    parser.add_argument("--judge", type=Path, help="a run, best a larger one")
    parser.add_argument("--html", type=Path, help="the figure of the last run")
    given = parser.parse_args()
    protocol = Protocol(prompts=given.prompts)
    records = []
    for run in given.runs:
        there = sorted((run / "analysis").glob(f"typicality-*-{given.split}.json"))
        print(f"{run}: {'read' if there else 'measured'}", file=sys.stderr)
        records += [TypicalityRecord.read(path) for path in there] or [
            measure_typicality(run, split=given.split, protocol=protocol, judge=given.judge)[0]
        ]
    groups = kinds(records)
    names = list(dict.fromkeys(row.name for each in records for row in each.rows))
    print("Information minus entropy, bits per byte\n")
    print_table(
        ["corpus, model, V", *names],
        [
            [
                f"{kind} ({len(own)} seeds)",
                *(
                    over_seeds(own, lambda each, name=name: deviation(each, name), signed=True)
                    for name in names
                ),
            ]
            for kind, own in groups.items()
        ],
    )
    print("Spearman's rank correlation of quality with the absolute value of that\n")
    qualities = list(dict.fromkeys(row.quality for each in records for row in each.correlations))
    print_table(
        ["corpus, model, V", *qualities],
        [
            [
                kind,
                *(
                    over_seeds(own, lambda each, key=key: correlation(each, key), 2, signed=True)
                    for key in qualities
                ),
            ]
            for kind, own in groups.items()
        ],
    )
    if given.html:
        figures.typicality(records[-1]).write_html(given.html)


def deviation(record: Any, name: str) -> Any:
    """Returns the deviation of the texts of one name."""
    return next((row.deviation for row in record.rows if row.name == name), None)


def correlation(record: Any, quality: str) -> Any:
    """Returns the correlation of a quality with the size of the deviation."""
    return next((row.size for row in record.correlations if row.quality == quality), None)


if __name__ == "__main__":
    main()
