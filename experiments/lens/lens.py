"""Entropy profiles of runs: do they tell kinds of text apart, and right from wrong answers?

python experiments/lens/lens.py runs/vocabulary/kjv-headline --vocabularies 512 8192

What lies in lens.json is not measured again; without runs, the tables are those of that file.
"""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import estimate, kinds, measured_runs, over_seeds, print_table, run_parser

from calibtrain.analysis.lens_of_run import LabelledText, look_into_run
from calibtrain.analysis.prompts import cut_prompts
from calibtrain.analysis.question_candidates import Protocol
from calibtrain.analysis.questions import ask_run
from calibtrain.analysis.separation import CrossValidation
from calibtrain.data.questions.template import TEMPLATES, Template
from calibtrain.runs.loading import opened

PARTS = {"kjv": "test", "pydoc": "train", "stdlib": "train"}
"""The part of each corpus that is read: none of them was trained on."""
ASKED = {"kinds of text": "text", "right and wrong answers": "answers"}


def main() -> None:
    parser = run_parser(__doc__, Path(__file__).with_name("lens.json"))
    parser.add_argument("--questions", default="cloze", help="whose answers are looked into")
    parser.add_argument("--count", type=int, default=400, help="of questions")
    parser.add_argument("--texts", type=int, default=40, help="of each corpus")
    parser.add_argument("--characters", type=int, default=160, help="of a text")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = ("questions", "count", "texts", "characters", "seed")
    settings = {name: getattr(given, name) for name in names}
    show(measured_runs(given, settings, lambda run: measured(run, given)))


def measured(run: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Returns how well a run's profiles separate kinds of text, and right from wrong answers."""
    texts = []
    with opened(run) as saved:
        for name in PARTS:
            cut = cut_prompts(
                saved.corpus(name).documents(PARTS[name]),
                count=given.texts,
                characters=given.characters,
                seed=given.seed,
            )
            texts += [LabelledText(each.text, name) for each in cut]
    asked = ask_run(run, given.questions, protocol=Protocol(count=given.count, seed=given.seed))
    template = Template(TEMPLATES[given.questions][0])
    answers = []
    for question, answer in zip(asked.questions, asked.to_dict()["answers"], strict=True):
        chosen = template.candidate(question.text, answer["candidates"][answer["chosen"]])
        label = "right" if answer["correct"] else "wrong"
        answers.append(LabelledText(chosen, label, template.prompt(question.text)))
    by = CrossValidation(seed=given.seed)
    found = {
        name: look_into_run(run, labelled=own, by=by).separation["shannon"]
        for name, own in (("text", texts), ("answers", answers))
    }
    return {name: dataclasses.asdict(each) for name, each in found.items()}


def show(found: list[Any]) -> None:
    """Prints the areas of each kind of arm, over seeds; of one run, with its interval."""
    rows = []
    for kind, own in kinds(found).items():
        for name, key in ASKED.items():

            def area(each: Any, key: str = key) -> Any:
                return estimate(getattr(each, key).area)

            def guesses(each: Any, key: str = key) -> Any:
                return estimate(getattr(each, key).dummy_area)

            def difference(each: Any, key: str = key) -> Any:
                one = getattr(each, key)
                return estimate(one.area - one.dummy_area, one.lower, one.upper)

            labels = ", ".join(
                f"{label} {count}" for label, count in vars(getattr(own[0], key).labels).items()
            )
            cells = [over_seeds(own, area), over_seeds(own, guesses)]
            rows.append([kind, name, labels, *cells, over_seeds(own, difference, signed=True)])
    heads = ("arms", "labels", "texts (of the first seed)", "area", "of guesses", "difference")
    print_table(heads, rows)


if __name__ == "__main__":
    main()
