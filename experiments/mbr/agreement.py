"""MBR decoding by different utilities on the samples of runs: agreement and cost, as Markdown.

python experiments/mbr/agreement.py runs/quickstart/*/ --out runs/mbr.json

All runs get the same prompts, cut from the test split.
"""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from calibtrain.analysis.prompts import cut_prompts
from calibtrain.generation.generate import generate
from calibtrain.generation.language_model import LanguageModel
from calibtrain.generation.mbr import Agreement, agreement
from calibtrain.runs.loading import opened


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--corpus", help="by name; the run's own by default")
    parser.add_argument("--split", default="test")
    parser.add_argument("--prompts", type=int, default=50, help="at most one of a document")
    parser.add_argument("--characters", type=int, default=200, help="of a prompt")
    parser.add_argument("--samples", type=int, default=32, help="of each prompt")
    parser.add_argument("--max-bytes", type=int, default=100, help="of a sample")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the figures and samples as JSON")
    given = parser.parse_args()
    found = [measured(run, given) for run in given.runs]
    if given.out:
        given.out.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", "utf-8")


def measured(run: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Samples from a run, prints the table of its utilities and returns the figures."""
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
    found = agreement(samples)
    show(run, model.tokenizer.vocab_size, len(prompts), given.samples, found)
    figures = dataclasses.asdict(found)
    figures |= {"same": found.same.tolist(), "kept": found.kept.tolist()}
    return {
        "run": str(run),
        "vocab_size": model.tokenizer.vocab_size,
        **{name: value for name, value in vars(given).items() if name not in ("runs", "out")},
        "prompts": [prompt.text for prompt in prompts],
        "samples_of_prompts": samples,
        **figures,
    }


def show(run: Path, vocab: int, prompts: int, samples: int, found: Agreement) -> None:
    """Prints the agreement (with its 95 % interval), what a choice is worth, and the cost."""
    print(
        f"\n{run}: V = {vocab:,}, {prompts} prompts, {samples} samples each "
        f"({found.distinct:.1f} distinct)\n"
    )
    print("| chosen by | " + " | ".join(f"same as {name}" for name in found.names), end="")
    print(" | " + " | ".join(f"worth to {name}" for name in found.names) + " | µs a pair |")
    print("|---" * (2 + 2 * len(found.names)) + "|")
    for row, name in enumerate(found.names):
        cells = []
        for column in range(len(found.names)):
            if row == column:
                cells.append("-")
                continue
            share = float(found.same[row, column])
            interval = binomtest(round(share * prompts), prompts).proportion_ci(method="wilson")
            cells.append(f"{share:.2f} ({interval.low:.2f} to {interval.high:.2f})")
        cells += [f"{worth:.3f}" for worth in found.kept[row]]
        cells.append(f"{1e6 * found.seconds[row] / found.comparisons:.0f}")
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
