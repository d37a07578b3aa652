"""Measures of consistency over questions, of each run; tables and claims, as Markdown.

python experiments/consistency/consistency.py runs/consistency \\
    --base runs/vocabulary/kjv-headline --imported runs/smollm2

What lies in consistency.json is not measured again; without runs, the tables are of that file.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import estimate, over_seeds, print_table

from calibtrain.analysis.consistency_of_run import consistency_over_questions
from calibtrain.analysis.consistency_questions import questions_to_sample
from calibtrain.figures.display import plural
from calibtrain.generation.samplers import Sampling
from calibtrain.storage.disk import write_whole

OUT = Path(__file__).with_name("consistency.json")
SEEDS = (0, 1, 2)
ENDS = tuple(" ,.;:?!()\n")
ASKED: Mapping[str, Mapping[str, Any]] = {
    "cloze": {"extract": "whole", "stop": ENDS, "max_tokens": 24},
    "capitals": {"extract": "first-line", "stop": (".", "\n"), "max_tokens": 10},
    "arithmetic": {"extract": "number", "stop": (".", "\n"), "max_tokens": 10},
}
"""How each set of questions is asked."""
MEASURES = (
    *("agreement", "held_out", "entropy", "entropy_by_samples", "fsd"),
    *("sequence_probability", "token_probability"),
    *("degree_chrf", "eccentricity_chrf", "eigenvalue_chrf", "cocoa_chrf"),
)
FIGURES = ("mean", "brier", "ece", "area_under_roc", "prediction_rejection_ratio")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tuned", type=Path, nargs="?", help="the folder that run.sh made")
    parser.add_argument("--base", type=Path, help="the study of the base runs")
    parser.add_argument("--imported", type=Path, help="the imported model, as a run")
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--out", type=Path, default=OUT, help=f"default {OUT.name}, beside this")
    given = parser.parse_args()
    found = json.loads(given.out.read_text("utf-8")) if given.out.exists() else []
    for key, run in planned(given):
        if any(key.items() <= each.items() for each in found):
            continue
        print(f"{run}: {key}", file=sys.stderr)
        found.append({**key, **measured(run, given.tuned, key)})
        lines = ",\n".join(json.dumps(each, ensure_ascii=False) for each in found)
        write_whole(given.out, f"[\n{lines}\n]\n")
    if not found:
        raise SystemExit(f"{given.out}: is not there; name the folder of run.sh")
    show(found)


def planned(given: argparse.Namespace) -> Iterator[tuple[dict[str, Any], Path]]:
    """Yields what is to be measured, and the run."""
    if given.tuned is None:
        return
    protocol = {"samples": given.samples}
    if given.imported is not None:
        for name in ("capitals", "arithmetic"):
            yield {"model": "SmolLM2", "set": name, "seed": 0, **protocol}, given.imported
    for seed in SEEDS:
        for model in ("base", "sft", "dpo"):
            folder = given.tuned / f"{model}-{seed}"
            if model == "base":
                if given.base is None:
                    continue
                folder = given.base / f"tokenizer=byte,seed={seed}"
            yield {"model": model, "set": "cloze", "seed": seed, **protocol}, folder


def measured(run: Path, questions: Path, key: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures of a run over a set of questions."""
    how = dict(ASKED[key["set"]])
    asked, _ = questions_to_sample(questions / f"{key['set']}.jsonl", how["extract"])
    found = consistency_over_questions(
        run, asked, samples=key["samples"], similarities=["chrf"], sampling=Sampling(), **how
    )
    rows = [row for row in found["figures"] if row["measure"] in MEASURES]
    kept = ("measure", "samples", "questions", *FIGURES, "brier_difference")
    return {
        "questions": found["questions"],
        "undefined": found["undefined"],
        "accuracy": _rounded(found["accuracy"]),
        "figures": [
            {name: _rounded(row[name]) for name in kept if row[name] is not None} for row in rows
        ],
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return round(value, 4) if isinstance(value, float) else value


def show(found: Sequence[dict[str, Any]]) -> None:
    """Prints the tables."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        groups.setdefault(f"{each['model']}, {each['set']}", []).append(each)
    for title, own in groups.items():
        accuracy = over_seeds(own, lambda each: SimpleNamespace(**each["accuracy"]))
        undefined = ", ".join(str(each["undefined"]) for each in own)
        print(
            f"{title}: {plural(len(own), 'run')}, {own[0]['questions']} questions, "
            f"{own[0]['samples']} samples; accuracy {accuracy}; without any answer: {undefined}\n"
        )
        last = own[0]["samples"]
        print_table(
            ["measure", "mean confidence", "Brier", "ECE", "AUROC", "PRR"],
            [
                [name, *(over_seeds(own, _figure(name, last, key)) for key in FIGURES)]
                for name in MEASURES
            ],
        )
    counts = sorted({row["samples"] for each in found for row in each["figures"]})
    names = ("agreement", "held_out", "entropy", "fsd", "sequence_probability")
    for heading, key in (("Brier score", "brier"), ("AUROC", "area_under_roc")):
        print(f"{heading} by samples\n")
        print_table(
            ["model, questions", "measure", *map(str, counts)],
            [
                [title, name, *(over_seeds(own, _figure(name, count, key)) for count in counts)]
                for title, own in groups.items()
                for name in names
            ],
        )
    print("Claims\n")
    print_table(
        ["model, questions", *(title for title, _ in CLAIMS)],
        [
            [title, *(over_seeds(own, figure, 3, signed=True) for _, figure in CLAIMS)]
            for title, own in groups.items()
        ],
    )


Figure = Callable[[dict[str, Any]], Any]


def _figure(measure: str, samples: int, key: str) -> Figure:
    """Returns what reads a figure of an arm; None where it has none."""

    def read(arm: dict[str, Any]) -> Any:
        for row in arm["figures"]:
            if (row["measure"], row["samples"]) == (measure, samples) and key in row:
                return SimpleNamespace(**row[key])
        return None

    return read


def _less(first: Figure, second: Figure) -> Figure:
    """Returns what reads the difference of two figures, without an interval of its own."""

    def read(arm: dict[str, Any]) -> Any:
        one, other = first(arm), second(arm)
        if one is None or other is None:
            return None
        return estimate(one.estimate - other.estimate)

    return read


def _gap(measure: str) -> Figure:
    """Returns what reads mean confidence less accuracy among questions that have an answer."""

    def read(arm: dict[str, Any]) -> Any:
        confidence = _figure(measure, 40, "mean")(arm)
        defined = arm["questions"] - arm["undefined"]
        if confidence is None or not defined:
            return None
        right = arm["accuracy"]["estimate"] * arm["questions"] / defined
        return estimate(confidence.estimate - right)

    return read


def _brier(name: str, samples: int = 40) -> Figure:
    return _figure(name, samples, "brier")


def _rejection(name: str) -> Figure:
    return _figure(name, 40, "prediction_rejection_ratio")


CLAIMS: Sequence[tuple[str, Figure]] = (
    ("1: Brier, agreement - sequence", _figure("agreement", 40, "brier_difference")),
    ("1: entropy - sequence", _figure("entropy", 40, "brier_difference")),
    ("1: FSD - sequence", _figure("fsd", 40, "brier_difference")),
    ("2: agreement - entropy", _less(_brier("agreement"), _brier("entropy"))),
    ("2: agreement - FSD", _less(_brier("agreement"), _brier("fsd"))),
    ("3: agreement, 40 - 5", _less(_brier("agreement"), _brier("agreement", 5))),
    ("3: FSD, 40 - 5", _less(_brier("fsd"), _brier("fsd", 5))),
    ("4: gap of agreement", _gap("agreement")),
    ("4: gap, held out", _gap("held_out")),
    (
        "5: PRR, CoCoA - sequence",
        _less(_rejection("cocoa_chrf"), _rejection("sequence_probability")),
    ),
    ("5: CoCoA - degree", _less(_rejection("cocoa_chrf"), _rejection("degree_chrf"))),
)


if __name__ == "__main__":
    main()
