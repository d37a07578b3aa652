"""MBR decoding by different utilities on the samples of runs: agreement and cost, as Markdown.

python experiments/mbr/agreement.py runs/vocabulary/kjv-headline \\
    --vocabularies 256 1024 8192 --seeds 0 1 2

All runs of a corpus get the same prompts, cut from the test split. What lies in agreement.json is
not measured again; without runs, the tables are those of that file.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import estimate, kinds, measured_runs, over_seeds, print_table, run_parser

from calibtrain.analysis.prompts import cut_prompts
from calibtrain.generation.generate import generate
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.mbr import agreement
from calibtrain.generation.similarity import UTILITIES
from calibtrain.runs.loading import opened

COMPARED = ("chrf", "bleu", "token-f1", "edit")


def main() -> None:
    parser = run_parser(__doc__, Path(__file__).with_name("agreement.json"))
    parser.add_argument("--corpus", help="by name; the run's own by default")
    parser.add_argument("--split", default="test")
    parser.add_argument("--prompts", type=int, default=50, help="at most one of a document")
    parser.add_argument("--characters", type=int, default=200, help="of a prompt")
    parser.add_argument("--samples", type=int, default=32, help="of each prompt")
    parser.add_argument("--max-bytes", type=int, default=100, help="of a sample")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = ("corpus", "split", "prompts", "characters", "samples", "max_bytes", "seed")
    settings = {name: getattr(given, name) for name in names}
    found = measured_runs(given, settings, lambda run: measured(run, given))
    for kind, own in kinds(found).items():
        show(kind, own)


def measured(run: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Samples from a run, and returns the figures."""
    with opened(run) as saved:
        documents = saved.corpus(given.corpus).documents(given.split)
        prompts = cut_prompts(
            documents, count=given.prompts, characters=given.characters, seed=given.seed
        )
        model = LanguageModel.of(saved)
    texts = generate(
        model,
        [prompt.text for prompt in prompts],
        samples=given.samples,
        seed=given.seed,
        max_bytes=given.max_bytes,
    )
    samples = [
        [text.text for text in texts[first : first + given.samples]]
        for first in range(0, len(texts), given.samples)
    ]
    found = agreement(samples, {name: UTILITIES[name] for name in COMPARED})
    figures = dataclasses.asdict(found)
    return {
        "texts": len(samples),
        **figures,
        "same": found.same.tolist(),
        "kept": found.kept.tolist(),
    }


def show(kind: str, own: list[Any]) -> None:
    """Prints the agreement, what a choice is worth, and the cost: of one run, or over seeds."""
    first = own[0]
    distinct = over_seeds(own, lambda each: estimate(each.distinct), 1)
    print(
        f"{kind}: {len(own)} seeds, {first.texts} prompts, {first.protocol.samples} "
        f"samples each ({distinct} distinct)\n"
    )
    rows = []
    for row, name in enumerate(first.names):
        cells = []
        for column in range(len(first.names)):

            def same(each: Any, row: int = row, column: int = column) -> Any:
                share, count = each.same[row][column], each.texts
                interval = binomtest(round(share * count), count).proportion_ci(method="wilson")
                return estimate(share, interval.low, interval.high)

            cells.append("-" if row == column else over_seeds(own, same, 2))
        for column in range(len(first.names)):

            def worth(each: Any, row: int = row, column: int = column) -> Any:
                return estimate(each.kept[row][column])

            cells.append("-" if row == column else over_seeds(own, worth))
        cost = sum(each.seconds[row] for each in own) / sum(each.comparisons for each in own)
        rows.append([name, *cells, f"{1e6 * cost:.0f}"])
    heads = [f"{what} {name}" for what in ("same as", "worth to") for name in first.names]
    print_table(["chosen by", *heads, "µs a pair"], rows)


if __name__ == "__main__":
    main()
