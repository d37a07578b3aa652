"""Entropy rates of generations by vocabulary, before and after calibration, as Markdown.

python experiments/entropy-rate/entropy_rate.py runs/vocabulary/kjv-headline \\
    --vocabularies 256 1024 8192 --seeds 0 1 2

What lies in entropy_rate.json is not measured again; without runs, the tables are those of that
file.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import (
    analysed,
    kinds,
    measured_runs,
    over_seeds,
    print_table,
    run_parser,
    without,
)

from calibtrain.analysis.entropy import Protocol, measure_entropy
from calibtrain.runs.analysis_records import EntropyRecord

FIGURES = {
    "bits/byte": ("bits_per_byte", False),
    "rise along the text": ("rise", True),
    "EntRate - CE, bits/byte": ("excess_bits_per_byte", True),
    "by token, nats": ("excess_nats_per_token", True),
    "amplification": ("amplification", False),
    "by byte": ("amplification_per_byte", False),
}


def main() -> None:
    parser = run_parser(__doc__, Path(__file__).with_name("entropy_rate.json"))
    parser.add_argument("--prompts", type=int, default=Protocol.prompts)
    parser.add_argument("--reference", type=int, default=Protocol.reference)
    parser.add_argument("--bin", type=int, default=Protocol.width, help="bytes of a bin")
    parser.add_argument("--candidates", type=int, default=Protocol.candidates)
    given = parser.parse_args()
    protocol = Protocol(
        prompts=given.prompts,
        reference=given.reference,
        width=given.bin,
        candidates=given.candidates,
    )
    asked = dataclasses.asdict(protocol)

    def measured(run: Path) -> dict[str, Any]:
        found = analysed(
            run,
            EntropyRecord,
            "entropy",
            asked,
            lambda opened: measure_entropy(opened, protocol),
        )
        rows = [without(row, "positions", "sampling") for row in found["rows"]]
        kept = {key: found[key] for key in ("documents", "temperature", "lookahead")}
        return {**kept, "rows": rows}

    for kind, own in kinds(measured_runs(given, asked, measured)).items():
        print(f"{kind}: {len(own)} seeds, {own[0].documents} documents\n")
        rows = []
        for name in dict.fromkeys(row.name for each in own for row in each.rows):
            cells = [
                over_seeds(own, lambda each, name=name, key=key: of(each, name, key), signed=signed)
                for key, signed in FIGURES.values()
            ]
            reach = sum(row.common_texts for each in own for row in each.rows if row.name == name)
            texts = sum(row.texts for each in own for row in each.rows if row.name == name)
            rows.append([name, f"{reach} of {texts}", *cells])
        print_table(["", "reach the end", *FIGURES], rows)
        fits = [each.lookahead for each in own]
        print(f"look-ahead's alpha: {over_seeds(fits, lambda fit: fit.alpha, signed=True)}")
        gain = over_seeds(fits, lambda fit: fit.held_out_gain, 4, signed=True)
        print(f"\nits gain on held-out text, nats/token: {gain}\n")


def of(record: Any, name: str, key: str) -> Any:
    """Returns a figure of the texts of one name; None where there is none."""
    return next((getattr(row, key, None) for row in record.rows if row.name == name), None)


if __name__ == "__main__":
    main()
