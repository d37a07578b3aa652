"""Entropy after every layer before and after tuning on answers, and on preferences after that.

python experiments/lens/aligned.py runs/vocabulary/kjv-headline/tokenizer=byte,seed=? \\
    runs/consistency/sft-? runs/consistency/dpo-?

What lies in aligned.json is not measured again; without runs, the tables are those of that file.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import (
    decided,
    measured_runs,
    of_stages,
    paired,
    print_stages,
    print_table,
    run_parser,
    stage,
)

from calibtrain.analysis.lens import layer_entropies
from calibtrain.analysis.lens_of_run import LabelledText, look_into_run
from calibtrain.analysis.question_candidates import Protocol
from calibtrain.analysis.questions import ask_run
from calibtrain.analysis.separation import CrossValidation
from calibtrain.data.questions.template import TEMPLATES, Template
from calibtrain.generation.language_model import LanguageModel
from calibtrain.runs.loading import opened

PLACES = ("text", "answer")
"""Where entropies are measured: along the questions, and along the right answers."""


def main() -> None:
    parser = run_parser(__doc__, Path(__file__).with_name("aligned.json"))
    parser.add_argument("--count", type=int, default=400, help="of questions")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    settings = {name: getattr(given, name) for name in ("count", "seed")}
    show(measured_runs(given, settings, lambda run: measured(run, given), stage))


def measured(run: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Returns mean profiles of a run, and how well they tell right from wrong answers."""
    asked = ask_run(run, "cloze", protocol=Protocol(count=given.count, seed=given.seed))
    template = Template(TEMPLATES["cloze"][0])
    chosen, right = [], []
    for question, answer in zip(asked.questions, asked.to_dict()["answers"], strict=True):
        prompt = template.prompt(question.text)
        label = "right" if answer["correct"] else "wrong"
        best = answer["candidates"][answer["chosen"]]
        chosen.append(LabelledText(template.candidate(question.text, best), label, prompt))
        right.append(template.candidate(question.text, question.accepted[0]))
    by = CrossValidation(seed=given.seed)
    told = look_into_run(run, labelled=chosen, by=by).separation["shannon"]
    prompts = [each.prompt for each in chosen]
    with opened(run) as saved:
        model = LanguageModel.of(saved)
        seen = (
            layer_entropies(model, prompts),
            layer_entropies(model, right, prompts=prompts),
        )
    profiles = {
        name: np.mean([each.profile("shannon") for each in found], axis=0).tolist()
        for name, found in zip(PLACES, seen, strict=True)
    }
    return {
        **profiles,
        "area": told.area,
        "dummy_area": told.dummy_area,
        "right": told.labels["right"],
    }


def show(found: list[Any]) -> None:
    """Prints the profiles and areas of each stage, their changes over seeds, and the claims."""
    layers = len(found[0].text)
    columns: dict[str, Any] = {
        f"{place}, layer {layer + 1}": (lambda e, p=place, i=layer: getattr(e, p)[i])
        for place in PLACES
        for layer in range(layers)
    }
    columns["area less that of guesses"] = lambda e: e.area - e.dummy_area
    last, area = columns[f"answer, layer {layers}"], columns["area less that of guesses"]
    claims = []
    for name, *pair in print_stages(of_stages(found), columns):
        claims += [
            [f"3: answer, last layer, {name}", *decided(paired(*pair, last), -1)],
            [f"4: area, {name}", *decided(paired(*pair, area), 1)],
        ]
    print_table(["claim", "figure over seeds", "by the rule"], claims)


if __name__ == "__main__":
    main()
