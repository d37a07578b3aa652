"""The bound on memory by vocabulary and architecture, as Markdown.

python experiments/memory/memory.py runs/quickstart/*/ runs/lstm/*/ --html runs/memory.html

A run that has no analysis/memory-*.json of the corpus and split yet is measured first.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import kinds, over_seeds, print_table

from calibtrain import figures
from calibtrain.analysis.memory import Protocol, measure_memory
from calibtrain.runs.analysis_records import MemoryRecord


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--split", default="test")
    parser.add_argument("--prompts", type=int, default=Protocol.prompts)
    parser.add_argument("--longest", type=int, default=64, help="tokens, the same for every run")
    parser.add_argument("--html", type=Path, help="a line for each run")
    given = parser.parse_args()
    protocol = Protocol(prompts=given.prompts, longest=given.longest)
    records = []
    for run in given.runs:
        there = sorted((run / "analysis").glob(f"memory-*-{given.split}.json"))
        print(f"{run}: {'read' if there else 'measured'}", file=sys.stderr)
        records += [MemoryRecord.read(path) for path in there] or [
            measure_memory(run, split=given.split, protocol=protocol)[0]
        ]
    lengths = sorted({row.tokens for each in records for row in each.rows})
    print("Bits per byte that are lost where only the last tokens are seen\n")
    rows = []
    for kind, own in kinds(records).items():
        size = sum(each.bytes_per_token for each in own) / len(own)
        cells = [over_seeds(own, lambda each, tau=tau: of(each, tau)) for tau in lengths]
        rows.append([f"{kind} ({len(own)} seeds)", f"{size:.2f}", *cells])
    print_table(["corpus, model, V", "bytes/token", *map(str, lengths)], rows)
    if given.html:
        figures.memory_bound(records).write_html(given.html)


def of(record: Any, tau: int) -> Any:
    """Returns the bound at so many tokens; None where it was not measured."""
    return next((row.bits_per_byte for row in record.rows if row.tokens == tau), None)


if __name__ == "__main__":
    main()
