"""The bound on memory by vocabulary and architecture, as Markdown.

python experiments/memory/memory.py runs/vocabulary/kjv-headline runs/memory-lstm \\
    --vocabularies 256 1024 8192 --seeds 0 1 2

What lies in memory.json is not measured again; without runs, the table is that of that file.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import analysed, kinds, measured_runs, over_seeds, print_table, run_parser

from calibtrain.analysis.memory import Protocol, measure_memory
from calibtrain.runs.analysis_records import MemoryRecord


def main() -> None:
    parser = run_parser(__doc__, Path(__file__).with_name("memory.json"))
    parser.add_argument("--prompts", type=int, default=Protocol.prompts)
    parser.add_argument("--generated", type=int, default=Protocol.generated, help="bytes")
    parser.add_argument("--positions", type=int, default=Protocol.positions)
    parser.add_argument("--longest", type=int, default=32, help="tokens, the same for every run")
    given = parser.parse_args()
    protocol = Protocol(
        prompts=given.prompts,
        generated=given.generated,
        positions=given.positions,
        longest=given.longest,
    )
    asked = dataclasses.asdict(protocol)

    def measured(run: Path) -> dict[str, Any]:
        found = analysed(
            run,
            MemoryRecord,
            "memory",
            asked,
            lambda opened: measure_memory(opened, protocol),
        )
        return {key: found[key] for key in ("documents", "positions", "bytes_per_token", "rows")}

    records = measured_runs(given, asked, measured)
    lengths = sorted({row.tokens for each in records for row in each.rows})
    print("Bits per byte that are lost where only the last tokens are seen\n")
    rows = []
    for kind, own in kinds(records).items():
        size = sum(each.bytes_per_token for each in own) / len(own)
        cells = [over_seeds(own, lambda each, tau=tau: of(each, tau)) for tau in lengths]
        rows.append([f"{kind} ({len(own)} seeds)", f"{size:.2f}", *cells])
    print_table(["corpus, V", "bytes/token", *map(str, lengths)], rows)


def of(record: Any, tau: int) -> Any:
    """Returns the bound at so many tokens; None where it was not measured."""
    return next((row.bits_per_byte for row in record.rows if row.tokens == tau), None)


if __name__ == "__main__":
    main()
