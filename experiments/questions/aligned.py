"""Cloze questions before and after tuning on answers, and on preferences after that.

python experiments/questions/aligned.py runs/vocabulary/kjv-headline/tokenizer=byte,seed=? \\
    runs/consistency/sft-? runs/consistency/dpo-?

What lies in aligned.json is not measured again; without runs, the tables are those of that file.
"""

import argparse
import operator
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import (
    STAGES,
    decided,
    measured_runs,
    of_stages,
    paired,
    print_stages,
    print_table,
    run_parser,
    stage,
)

from calibtrain.analysis.question_candidates import Protocol
from calibtrain.analysis.questions import ask_run

COLUMNS = ("accuracy", "mean_confidence", "signed_gap", "ece", "every_ece", "nll", "gap")
HEADS = (
    *("accuracy", "confidence", "signed gap", "ECE, top", "ECE, every", "nll, right"),
    "confidence, right less wrong",
)


def main() -> None:
    parser = run_parser(__doc__, Path(__file__).with_name("aligned.json"))
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    settings = {name: getattr(given, name) for name in ("count", "seed")}
    show(measured_runs(given, settings, lambda run: measured(run, given), stage))


def measured(run: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Asks a run; one that is tuned, with the end of the text after each candidate."""
    tuned = stage(run)["stage"] != STAGES[0]
    found = ask_run(run, "cloze", protocol=Protocol(count=given.count, seed=given.seed, end=tuned))
    top, every, pooled = found.top.results, found.every.results, found.to_dict()["gaps"][0]
    names = ("accuracy", "mean_confidence", "signed_gap", "ece", "nll")
    own = {name: top[name] for name in names}
    return {**own, "every_ece": every["ece"], "gap": pooled["gap"]}


def show(found: list[Any]) -> None:
    """Prints a row for each stage, the changes paired over seeds, and the claims."""
    figures = {head: operator.attrgetter(key) for head, key in zip(HEADS, COLUMNS, strict=True)}
    claims = [
        [f"ECE, top, {name}", *decided(paired(*pair, operator.attrgetter("ece")), 1)]
        for name, *pair in print_stages(of_stages(found), figures)
    ]
    print_table(["claim 8", "figure over seeds", "by the rule"], claims)


if __name__ == "__main__":
    main()
