"""Writes studies whose budgets give all vocabularies the same bits per byte; prints their paths.

python match.py FOLDER CORPUS

FOLDER holds the studies CORPUS-headline and CORPUS-one-pass. The log of the bits per byte of
validation text is taken to be a straight line in the log of the budget through the two, for each
vocabulary. What all are to reach is what the worst of them has after four passes; that one is in
the headline study already. Seeds are those of the one-pass study; test text is not looked at.
"""

import json
import math
import statistics
import sys
from pathlib import Path

import yaml

import calibtrain as ct

HERE = Path(__file__).parent
Points = dict[str, dict[int, list[float]]]


def bits_per_byte(study: Path, seeds: list[int], found: Points) -> None:
    """Adds the bits per byte of validation text of each arm, by tokenizer and budget."""
    for arm in sorted(path.parent for path in study.glob("*/run.json")):
        run = ct.open_run(arm)
        if run.config.seed not in seeds:
            continue
        if run.status != "done":
            raise SystemExit(f"{arm}: {run.status}; finish the study first")
        last = max(each.record.step for each in run.evaluations)
        value = next(
            float(each["bits_per_byte"])
            for each in run.evaluations
            if (each.record.split, each.record.event, each.record.step)
            == ("validation", "token", last)
            and each.record.temperature in (None, 1.0)
        )
        tokenizer = json.dumps(run.config.tokenizer.model_dump(exclude_defaults=True))
        budget = run.config.budget.bytes
        assert budget is not None
        found.setdefault(tokenizer, {}).setdefault(budget, []).append(value)


def solved(points: dict[int, float], target: float) -> int:
    """Returns the budget at which the line through two points reaches the target."""
    (low, high) = sorted(points)
    slope = math.log(points[high] / points[low]) / math.log(high / low)
    return round(high * math.exp(math.log(target / points[high]) / slope), -3)


def main() -> None:
    folder, corpus = Path(sys.argv[1]), sys.argv[2]
    tree = yaml.safe_load((HERE / "study-one-pass.yaml").read_text())
    seeds = tree["grid"]["seed"]
    found: Points = {}
    for set_ in ("headline", "one-pass"):
        bits_per_byte(folder / f"{corpus}-{set_}", seeds, found)
    means = {
        tokenizer: {budget: statistics.mean(values) for budget, values in points.items()}
        for tokenizer, points in found.items()
    }
    most = max(budget for points in means.values() for budget in points)
    target = max(points[most] for points in means.values() if len(points) > 1)
    made = folder / "matched" / corpus
    made.mkdir(parents=True, exist_ok=True)
    for tokenizer, points in means.items():
        if points[most] == target or len(points) < 2:  # the sizes in both studies are matched
            continue
        settings = json.loads(tokenizer)
        tree["title"] = f"Vocabulary size, {target:.3f} bits per byte"
        tree["base"] |= {"tokenizer": settings, "budget": {"bytes": solved(points, target)}}
        tree["base"]["evaluation"]["event_bytes"] = {"byte": 16_384}  # the text of the headline
        tree["grid"] = {"seed": seeds}
        path = made / f"bits-{settings.get('vocab_size', 256)}.yaml"
        path.write_text(yaml.safe_dump(tree, sort_keys=False))
        print(path)


if __name__ == "__main__":
    main()
