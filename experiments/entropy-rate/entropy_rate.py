"""Entropy rates of generations by vocabulary, before and after calibration, as Markdown.

python experiments/entropy-rate/entropy_rate.py runs/quickstart/*/ --html runs/entropy.html

A run that has no analysis/entropy-*.json of the corpus and split yet is measured first.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import kinds, over_seeds, print_table

from calibtrain import figures
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--split", default="test")
    parser.add_argument("--prompts", type=int, default=Protocol.prompts)
    parser.add_argument("--reference", type=int, default=Protocol.reference)
    parser.add_argument("--calibrate", default="both")
    parser.add_argument("--html", type=Path, help="entropy by position of the last run")
    given = parser.parse_args()
    protocol = Protocol(prompts=given.prompts, reference=given.reference)
    records = []
    for run in given.runs:
        there = sorted((run / "analysis").glob(f"entropy-*-{given.split}.json"))
        print(f"{run}: {'read' if there else 'measured'}", file=sys.stderr)
        records += [EntropyRecord.read(path) for path in there] or [
            measure_entropy(run, split=given.split, protocol=protocol, calibrate=given.calibrate)[0]
        ]
    for kind, own in kinds(records).items():
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
        fits = [each.lookahead for each in own if each.get("lookahead")]
        if fits:
            print(f"look-ahead's alpha: {over_seeds(fits, lambda fit: fit.alpha, signed=True)}")
            gain = over_seeds(fits, lambda fit: fit.held_out_gain, 4, signed=True)
            print(f"\nits gain on held-out text, nats/token: {gain}\n")
    if given.html:
        figures.entropy_by_position(records[-1]).write_html(given.html)


def of(record: Any, name: str, key: str) -> Any:
    """Returns a figure of the texts of one name; None where there is none."""
    return next((getattr(row, key) for row in record.rows if row.name == name), None)


if __name__ == "__main__":
    main()
