"""Writes studies whose budgets give all vocabularies the same bits per byte; prints their paths.

python match.py FOLDER CORPUS

FOLDER holds the studies CORPUS-headline and CORPUS-one-pass. What all vocabularies are to reach is
the bits per byte of validation text that the worst of them has after four passes; that one is in
the headline study already. For each other one, the log of the bits per byte is taken to be a
straight line in the log of the budget through the two nearest budgets, and runs with the budget
that this gives are trained in FOLDER/matched, until their mean is within 1 % of it. Seeds are those
of the one-pass study; test text is not looked at.
"""

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import yaml

import calibtrain as ct

HERE = Path(__file__).parent
NEAR = 0.01
ROUNDS = 6


def measured(run: Any) -> float:
    """Returns the bits per byte of a run's validation text at its end."""
    if run.status != "done":
        raise SystemExit(f"{run.path}: {run.status}; finish the study first")
    found = [
        each
        for each in run.evaluations
        if (each.record.split, each.record.event) == ("validation", "token")
        and each.record.temperature in (None, 1.0)
    ]
    return float(max(found, key=lambda each: each.record.step)["bits_per_byte"])


def solved(points: dict[int, float], target: float) -> int:
    """Returns the budget at which the line through the two points nearest to the target meets it.

    Example:
        >>> solved({100_000: 4.0, 400_000: 2.0}, math.sqrt(8.0))
        200000
    """
    near = sorted(points, key=lambda budget: abs(math.log(points[budget] / target)))[:2]
    low, high = sorted(near)
    slope = math.log(points[high] / points[low]) / math.log(high / low)
    if slope >= 0:
        raise SystemExit(f"bits per byte do not fall from {low:,} to {high:,} bytes: {points}")
    budget = high * math.exp(math.log(target / points[high]) / slope)
    return round(min(max(budget, min(points) / 4), 4 * max(points)) / 1000) * 1000


def matched(arms: list[Any], points: dict[int, float], target: float, folder: Path) -> int:
    """Returns the budget with which the arms of a vocabulary reach the target.

    Args:
        arms: its runs in the headline study, one a seed.
        points: the mean bits per byte of its arms by budget; those of what is trained are added.
        target: in bits per byte.
        folder: receives the runs.
    """
    for _ in range(ROUNDS):
        nearest = min(points, key=lambda budget: abs(math.log(points[budget] / target)))
        if abs(points[nearest] / target - 1) <= NEAR:
            return nearest
        budget = solved(points, target)
        if budget in points:
            break
        points[budget] = statistics.mean(trained(arm, budget, folder) for arm in arms)
        print(f"{folder.name}: {budget:,} bytes: {points[budget]:.4f} bits/byte", file=sys.stderr)
    raise SystemExit(f"{folder}: no budget within {NEAR:.0%} of {target:.4f}: {points}")


def trained(arm: Any, budget: int, folder: Path) -> float:
    """Trains an arm with another budget, and returns the bits per byte of its validation text."""
    config = arm.config.model_copy(
        update={
            "budget": arm.config.budget.model_copy(update={"bytes": budget}),
            "evaluation": arm.config.evaluation.model_copy(update={"events": ("token",)}),
        }
    )
    return measured(ct.train(config, folder / f"{budget}-{config.seed}", progress=None))


def main() -> None:
    folder, corpus = Path(sys.argv[1]), sys.argv[2]
    tree = yaml.safe_load((HERE / "study-one-pass.yaml").read_text())
    seeds = tree["grid"]["seed"]
    values: dict[str, dict[int, list[float]]] = {}
    arms: dict[str, list[Any]] = {}
    for set_ in ("headline", "one-pass"):
        for path in sorted((folder / f"{corpus}-{set_}").glob("*/run.json")):
            run = ct.open_run(path.parent)
            if run.config.seed not in seeds:
                continue
            tokenizer = json.dumps(run.config.tokenizer.model_dump(exclude_defaults=True))
            values.setdefault(tokenizer, {}).setdefault(run.config.budget.bytes, []).append(
                measured(run)
            )
            if set_ == "headline":
                arms.setdefault(tokenizer, []).append(run)
    means = {
        tokenizer: {budget: statistics.mean(each) for budget, each in by_budget.items()}
        for tokenizer, by_budget in values.items()
        if len(by_budget) > 1  # the sizes in both studies are matched
    }
    most = max(budget for points in means.values() for budget in points)
    target = max(points[most] for points in means.values())
    made = folder / "matched" / corpus
    made.mkdir(parents=True, exist_ok=True)
    for tokenizer, points in means.items():
        if points[most] == target:
            continue
        own = arms[tokenizer][0].config.tokenizer
        size = 256 if own.kind == "byte" else own.vocab_size
        budget = matched(arms[tokenizer], points, target, made / f"runs-{size}")
        tree["title"] = f"Vocabulary size, {target:.3f} bits per byte"
        tree["base"] |= {"tokenizer": json.loads(tokenizer), "budget": {"bytes": budget}}
        tree["base"]["evaluation"]["event_bytes"] = {"byte": 16_384}  # the text of the headline
        tree["grid"] = {"seed": seeds}
        path = made / f"bits-{size}.yaml"
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        print(path)


if __name__ == "__main__":
    main()
