"""Information minus entropy of human and generated text by vocabulary, as Markdown.

python experiments/typicality/typicality.py runs/vocabulary/kjv-headline \\
    --vocabularies 256 1024 8192 --seeds 0 1 2

What lies in typicality.json is not measured again; without runs, the tables are those of that file.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import analysed, kinds, measured_runs, over_seeds, print_table, run_parser

from calibtrain.analysis.typicality import Protocol, measure_typicality
from calibtrain.runs.analysis_records import TypicalityRecord


def main() -> None:
    parser = run_parser(__doc__, Path(__file__).with_name("typicality.json"))
    parser.add_argument("--prompts", type=int, default=Protocol.prompts)
    parser.add_argument("--generated", type=int, default=Protocol.generated, help="bytes")
    parser.add_argument("--judge", type=Path, help="a run, best a larger one")
    given = parser.parse_args()
    protocol = Protocol(prompts=given.prompts, generated=given.generated)
    asked = dataclasses.asdict(protocol)

    def measured(run: Path) -> dict[str, Any]:
        found = analysed(
            run,
            TypicalityRecord,
            "typicality",
            asked,
            lambda opened: measure_typicality(opened, protocol, judge=given.judge),
        )
        return {key: found[key] for key in ("documents", "rows", "correlations")}

    records = measured_runs(given, asked, measured)
    names = list(dict.fromkeys(row.name for each in records for row in each.rows))
    groups = kinds(records)

    def of_names(key: str) -> list[list[str]]:
        return [
            [
                f"{kind} ({len(own)} seeds)",
                *(
                    over_seeds(own, lambda each, name=name: of(each, name, key), signed=True)
                    for name in names
                ),
            ]
            for kind, own in groups.items()
        ]

    print("Information minus entropy, bits per byte\n")
    print_table(["corpus, V", *names], of_names("deviation"))
    print("Spearman's rank correlation of quality with the absolute value of that\n")
    qualities = list(dict.fromkeys(row.quality for each in records for row in each.correlations))
    print_table(
        ["corpus, V", *qualities],
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


def of(record: Any, name: str, key: str) -> Any:
    """Returns a figure of the texts of one name."""
    return next((getattr(row, key) for row in record.rows if row.name == name), None)


def correlation(record: Any, quality: str) -> Any:
    """Returns the correlation of a quality with the size of the deviation."""
    return next((row.size for row in record.correlations if row.quality == quality), None)


if __name__ == "__main__":
    main()
