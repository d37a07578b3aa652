"""Cloze questions put to runs of several vocabularies: confidence, groups, temperature.

python experiments/questions/questions.py runs/vocabulary/kjv-headline \\
    --vocabularies 512 1024 2048 4096 8192

What lies in questions.json is not measured again; without runs, the tables are those of that file.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import estimate, kinds, measured_runs, over_seeds, print_table, run_parser

from calibtrain.analysis.question_candidates import Protocol
from calibtrain.analysis.questions import Asked, ask_run
from calibtrain.evaluation.candidates import error_differences, fit_candidate_temperature
from calibtrain.metrics.student import student_half_width

WAYS = ("all", "own")
PERMUTATIONS = 1000


def main() -> None:
    parser = run_parser(__doc__, Path(__file__).with_name("questions.json"))
    parser.add_argument("--questions", default="cloze", help="a set, or a file")
    parser.add_argument("--corpus", help="of cloze questions; default that of the run")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = ("questions", "corpus", "count", "seed")
    settings = {name: own for name in names if (own := getattr(given, name)) is not None}
    asked = {} if given.questions == "cloze" else {"corpus": given.questions}
    found = measured_runs(given, settings, lambda run: measured(run, given), lambda run: asked)
    show(found)
    if len(found) > 1:
        verdicts(found)
    else:
        verdicts_of_one(found[0])


def measured(run: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Asks a run both ways, and returns the figures."""
    built_in = given.questions in ("cloze", "capitals", "arithmetic")
    asked = {
        way: ask_run(
            run,
            given.questions,
            corpus=given.corpus,
            protocol=Protocol(
                tokenisations=way, count=given.count if built_in else None, seed=given.seed
            ),
        )
        for way in WAYS
    }
    logs = [np.exp(each.candidates.log_confidence()) for each in asked.values()]
    return {
        **{way: figures(each, given.seed) for way, each in asked.items()},
        "distance": float(np.abs(logs[0] - logs[1]).sum(1).mean() / 2),
    }


def figures(asked: Asked, seed: int) -> dict[str, Any]:
    """Returns the figures of one way of scoring."""
    own = asked.candidates
    order = np.random.default_rng(seed).permutation(len(own))
    halves = [sorted(half.tolist()) for half in np.array_split(order, 2)]
    temperature = fit_candidate_temperature(own.chosen(halves[0])).temperature
    measured_half = own.chosen(halves[1])
    differences = error_differences(measured_half.at(temperature), measured_half)
    confidence, correct, _ = own.top()
    top, every = asked.top.results, asked.every.results
    gap = confidence - correct
    groups = np.array(own.groups)
    rng = np.random.default_rng(seed)
    return {
        **{
            name: interval(top, name)
            for name in ("accuracy", "mean_confidence", "signed_gap", "ece", "nll")
        },
        "every_ece": interval(every, "ece"),
        "temperature": temperature,
        **{f"{name}_difference": ends(each) for name, each in differences.items()},
        "groups": {name: float(gap[groups == name].mean()) for name in sorted(set(own.groups))},
        "spread": spread(gap, groups),
        "spread_by_chance": float(
            np.mean([spread(gap, rng.permutation(groups)) for _ in range(PERMUTATIONS)])
        ),
    }


def spread(gap: np.ndarray, groups: np.ndarray) -> float:
    """Returns the largest less the smallest signed gap of a group."""
    means = [float(gap[groups == name].mean()) for name in np.unique(groups)]
    return max(means) - min(means)


def interval(results: Any, name: str) -> dict[str, float]:
    """Returns a figure with its interval over questions."""
    own = results["intervals"][name]
    return {"estimate": results[name], "lower": own["lower"], "upper": own["upper"]}


def ends(found: Any) -> dict[str, float]:
    """Returns an interval as JSON."""
    return {"estimate": found.estimate, "lower": found.lower, "upper": found.upper}


def show(found: list[Any]) -> None:
    """Prints a row for each vocabulary and way of scoring; and the groups."""
    rows = []
    for kind, own in kinds(found).items():
        for way in WAYS:

            def of(name: str, way: str = way) -> Callable[[Any], Any]:
                return lambda each: getattr(getattr(each, way), name)

            rows.append(
                [
                    kind,
                    way,
                    over_seeds(own, of("accuracy")),
                    over_seeds(own, of("mean_confidence")),
                    over_seeds(own, of("signed_gap"), signed=True),
                    over_seeds(own, of("ece")),
                    over_seeds(own, of("every_ece")),
                    over_seeds(own, lambda e, of=of: estimate(of("temperature")(e)), 2),
                    over_seeds(own, of("top_candidate_difference"), signed=True),
                    over_seeds(own, of("every_candidate_difference"), signed=True),
                ]
            )
    heads = ("accuracy", "confidence", "signed gap", "ECE, top", "ECE, every", "T fitted")
    more = ("ECE, top, with T less without", "ECE, every, with T less without")
    print_table(["arms", "scored", *heads, *more], rows)
    rows = []
    for kind, own in kinds(found).items():
        names = list(vars(own[0].all.groups))
        cells = [
            over_seeds(own, lambda e, n=name: estimate(vars(e.all.groups)[n]), signed=True)
            for name in names
        ]
        spreads = [
            over_seeds(own, lambda e, key=key: estimate(getattr(e.all, key)))
            for key in ("spread", "spread_by_chance")
        ]
        distance = over_seeds(own, lambda e: estimate(e.distance), 4)
        rows.append([kind, *cells, *spreads, distance])
    heads = [f"signed gap, {name}" for name in vars(found[0].all.groups)]
    print_table(["arms", *heads, "spread", "by chance", "own against all"], rows)


def verdicts_of_one(found: Any) -> None:
    """Prints the figures of claims that have an interval over questions, and what the rule says."""
    claims = (
        ("1: signed gap", found.all.signed_gap, 1),
        (
            "2: ECE of every candidate with T less without",
            found.all.every_candidate_difference,
            -1,
        ),
    )
    rows = []
    for name, figure, side in claims:
        decided = figure.lower > 0 or figure.upper < 0
        said = "reproduced" if figure.estimate * side > 0 else "refuted"
        text = f"{figure.estimate:+.4f} ({figure.lower:+.4f} to {figure.upper:+.4f})"
        rows.append([name, text, said if decided else "not decided"])
    print_table(["claim", "figure, interval over questions", "by the rule"], rows)


def verdicts(found: list[Any]) -> None:
    """Prints the figure of each claim with its interval over seeds, and what the rule says."""
    seeds = sorted({each.seed for each in found})
    sizes = sorted({each.vocab_size for each in found})

    def mean(figure: Callable[[Any], float]) -> list[float]:
        return [float(np.mean([figure(e) for e in found if e.seed == seed])) for seed in seeds]

    def slope(figure: Callable[[Any], float]) -> list[float]:
        return [
            float(
                np.polyfit(
                    np.log2([e.vocab_size for e in found if e.seed == seed]),
                    [figure(e) for e in found if e.seed == seed],
                    1,
                )[0]
            )
            for seed in seeds
        ]

    claims: list[tuple[str, list[float], int]] = [
        ("1: signed gap, mean over V", mean(lambda e: e.all.signed_gap.estimate), 1),
        (
            "2: ECE of every candidate with T less without, mean over V",
            mean(lambda e: e.all.every_candidate_difference.estimate),
            -1,
        ),
        (
            "3: spread of groups less that by chance, mean over V",
            mean(lambda e: e.all.spread - e.all.spread_by_chance),
            1,
        ),
    ]
    if len(sizes) > 1:
        claims += [
            ("4: signed gap, per doubling of V", slope(lambda e: e.all.signed_gap.estimate), 0),
            ("4: ECE of the top candidate, per doubling", slope(lambda e: e.all.ece.estimate), 0),
            ("5: own against all, per doubling", slope(lambda e: e.distance), 1),
        ]
    rows = []
    for name, values, side in claims:
        middle, half = float(np.mean(values)), student_half_width(values) or float("inf")
        decided = abs(middle) > half
        right = decided and (side == 0 or np.sign(middle) == side)
        said = "reproduced" if right else "refuted" if decided else "not decided"
        rows.append([name, f"{middle:+.4f} ±{half:.4f}", said])
    print_table(["claim", "figure over seeds", "by the rule"], rows)


if __name__ == "__main__":
    main()
