"""H6: does the entropy of generations drift faster with a larger vocabulary? As Markdown.

python experiments/entropy-rate/drift.py runs/vocabulary/*-headline

Measures the arms by the protocol of experiments/vocabulary/HYPOTHESES.md, and gives the verdict by
the rule of that page. What lies in drift.json is not measured again; without runs, the tables are
those of that file.
"""

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

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

PROTOCOL = Protocol(prompts=32, prefix=128, reference=1024, width=64, samples=1, seed=0)
LADDER = (256, 512, 2048, 8192)
NEEDED = {512, 8192}
MARGIN = 0.01
"""Bits per byte and doubling: within it, the drift does not move."""

RATES = {
    "text, bits/byte": ("text", "bits_per_byte"),
    "generations, bits/byte": ("ancestral", "bits_per_byte"),
    "EntRate - CE": ("ancestral", "excess_bits_per_byte"),
    "amplification by byte": ("ancestral", "amplification_per_byte"),
    "by token": ("ancestral", "amplification"),
}
"""What is shown of the entropy rate, without a verdict: of which row, and which figure."""

Drifts = dict[tuple[str, int], dict[int, float]]
"""The drift in bits per byte, by corpus and seed, and then by vocabulary."""


def main() -> None:
    parser = run_parser(__doc__, Path(__file__).with_name("drift.json"))
    parser.set_defaults(vocabularies=list(LADDER), seeds=[0, 1, 2])
    records = measured_runs(parser.parse_args(), dataclasses.asdict(PROTOCOL), measured)
    rows = []
    for kind, own in kinds(records).items():
        reach = sum(row(each, "ancestral").common_texts for each in own)
        cells = [
            over_seeds(own, lambda each, name=name: row(each, name).rise, signed=True)
            for name in ("ancestral", "text")
        ]
        texts = sum(row(each, "ancestral").texts for each in own)
        rows.append([f"{kind} ({len(own)} seeds)", f"{reach} of {texts}", *cells])
    print("Bits per byte in the last quarter less those in the first\n")
    print_table(["corpus, V", "reach the end", "generations: entropy", "text: cross entropy"], rows)
    print("Entropy rate of the generations against the cross entropy of the documents\n")
    print_table(
        ["corpus, V", *RATES],
        [
            [
                f"{kind} ({len(own)} seeds)",
                *(
                    over_seeds(own, lambda each, cell=cell: getattr(row(each, cell[0]), cell[1]))
                    for cell in RATES.values()
                ),
            ]
            for kind, own in kinds(records).items()
        ],
    )
    found = {}
    for title, drift, left_out in (
        ("drift", own_drift, ()),
        ("drift without V = 256", own_drift, (256,)),
        ("drift less that of the text", net_drift, ()),
    ):
        found[title] = slopes(table(records, drift, left_out))
    print("Slope on log2 V, bits per byte and doubling\n")
    print_table(
        ["figure", "corpus", "slopes of the seeds", "mean"],
        [
            [
                title,
                corpus,
                ", ".join(f"{slope:+.4f}" for slope in own),
                f"{np.mean(own):+.4f}",
            ]
            for title, each in found.items()
            for corpus, own in each["slopes"].items()
        ]
        + [
            [title, "both" if len(each["slopes"]) > 1 else "alone", "", said(each)]
            for title, each in found.items()
        ],
    )
    print(f"**H6: {verdict(found['drift'])}.**")


def measured(run: Path) -> dict[str, Any]:
    """Returns the rows of documents and generations.

    The rule reads these two alone, so that what else `calibtrain entropy` fits and generates is
    left out: a generation is a function of its seed and number.
    """
    found = analysed(
        run,
        EntropyRecord,
        "entropy",
        dataclasses.asdict(PROTOCOL),
        lambda opened: measure_entropy(opened, PROTOCOL, calibrate="none"),
    )
    rows = [without(row, "positions") for row in found["rows"]]
    return {"rows": [row for row in rows if row["name"] in ("text", "ancestral")]}


def row(record: Any, name: str) -> Any:
    """Returns what a record says of the texts of one name."""
    return next(each for each in record.rows if each.name == name)


def own_drift(record: Any) -> float | None:
    """Returns the rise of the entropy of generations."""
    found = row(record, "ancestral").rise
    return None if found is None else found.estimate


def net_drift(record: Any) -> float | None:
    """Returns the same less the rise of the documents' own cross entropy."""
    drift, text = own_drift(record), row(record, "text").rise
    return None if drift is None or text is None else drift - text.estimate


def table(
    records: Sequence[Any], drift: Callable[[Any], float | None], left_out: Sequence[int] = ()
) -> Drifts:
    """Returns the drifts of the ladder's arms."""
    found: Drifts = {}
    for each in records:
        value = drift(each)
        if value is not None and each.vocab_size in LADDER and each.vocab_size not in left_out:
            found.setdefault((each.corpus, each.seed), {})[each.vocab_size] = value
    return found


def slopes(drifts: Drifts) -> dict[str, Any]:
    """Returns the slope of each seed, their mean over the means of corpora, and its interval.

    Student's interval, from the variance of the slopes within corpora, pooled. A seed without the
    vocabularies that are needed is left out.

    Example:
        >>> steps = {512: 9.0, 2048: 11.0, 8192: 13.0}
        >>> fast = {vocab: 2 * step for vocab, step in steps.items()}
        >>> found = slopes({("kjv", 0): steps, ("kjv", 1): fast, ("kjv", 2): {512: 1.0}})
        >>> [round(slope, 6) for slope in found["slopes"]["kjv"]], round(found["mean"], 6)
        ([1.0, 2.0], 1.5)
    """
    own: dict[str, list[float]] = {}
    for (corpus, _), by_vocab in sorted(drifts.items()):
        if set(by_vocab) >= NEEDED and len(by_vocab) >= 3:
            steps = np.log2(list(by_vocab))
            own.setdefault(corpus, []).append(
                float(np.polyfit(steps, list(by_vocab.values()), 1)[0])
            )
    freedom = sum(len(each) - 1 for each in own.values())
    half = None
    if freedom > 0:
        squares = sum((np.var(each) * len(each) for each in own.values()), 0.0)
        variance = squares / freedom * sum(1 / len(each) for each in own.values()) / len(own) ** 2
        half = float(student.ppf(0.975, freedom) * np.sqrt(variance))
    mean = float(np.mean([np.mean(each) for each in own.values()])) if own else None
    return {"slopes": own, "mean": mean, "half_width": half, "degrees_of_freedom": freedom}


def said(found: Mapping[str, Any]) -> str:
    """Returns the mean with its interval."""
    if found["mean"] is None:
        return "-"
    half = found["half_width"]
    return f"{found['mean']:+.4f}" + ("" if half is None else f" ± {half:.4f}")


def verdict(found: Mapping[str, Any]) -> str:
    """Returns supported, refuted or not decided, by the rule that was written before.

    Example:
        >>> found = {"slopes": {"kjv": [0.05], "stdlib": [0.04]}, "mean": 0.045}
        >>> verdict({**found, "half_width": 0.02}), verdict({**found, "half_width": 0.05})
        ('supported', 'not decided')
    """
    mean, half = found["mean"], found["half_width"]
    if mean is None or half is None:
        return "not decided"
    low, high = mean - half, mean + half
    if low > 0 and all(np.mean(each) > 0 for each in found["slopes"].values()):
        return "supported"
    if high < 0 or (low > -MARGIN and high < MARGIN):
        return "refuted"
    return "not decided"


if __name__ == "__main__":
    main()
