"""Cloze questions before and after fine-tuning on others: sft, softmax, margin.

python experiments/questions/tuning.py runs/vocabulary/kjv-headline --vocabularies 1024 \\
    --work runs/tuned

What lies in tuning.json is not measured again; without runs, the tables are those of that file.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))
from over_seeds import estimate, kinds, measured_runs, over_seeds, print_table, run_parser

from calibtrain.analysis.question_candidates import Protocol
from calibtrain.analysis.questions import ask_run
from calibtrain.data.questions.built_in import cloze
from calibtrain.data.questions.question import Question
from calibtrain.data.questions.template import TEMPLATES, Template
from calibtrain.finetuning import finetune, resolve
from calibtrain.runs.loading import opened

OBJECTIVES = ("sft", "softmax", "margin")
TEMPLATE = TEMPLATES["cloze"][0]


def main() -> None:
    parser = run_parser(__doc__, Path(__file__).with_name("tuning.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/tuned"), help="where runs are made")
    parser.add_argument("--count", type=int, default=400, help="questions that are measured")
    parser.add_argument("--examples", type=int, default=320, help="questions that are trained on")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    names = ("count", "examples", "epochs", "learning_rate", "seed")
    settings = {name: getattr(given, name) for name in names}
    show(measured_runs(given, settings, lambda run: measured(run, given)))


def measured(run: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Asks a run before and after each fine-tuning."""
    with opened(run) as saved:
        corpus = saved.corpus(None)
        questions = cloze(
            corpus.documents("train"),
            list(corpus.documents("validation")),
            count=given.examples,
            seed=given.seed,
        )
    folder = given.work / run.name.replace("=", "-").replace(",", "-")
    folder.mkdir(parents=True, exist_ok=True)
    found = {"before": asked(run, given, end=False)}
    for objective in OBJECTIVES:
        examples = folder / f"{objective}.jsonl"
        write(examples, questions, objective)
        finetune_here(run, folder, objective, examples, given)
        found[objective] = asked(folder / objective, given, end=True)
    return found


def write(path: Path, questions: list[Question], objective: str) -> None:
    """Writes questions as the examples of an objective."""
    template, rows = Template(TEMPLATE), []
    for each in questions:
        if objective == "sft":
            response = template.candidate(each.text, each.accepted[0])
            rows.append({"prompt": template.prompt(each.text), "response": response})
        else:
            rows.append({"question": each.text, "choices": each.choices, "answer": each.right})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def finetune_here(
    run: Path, folder: Path, objective: str, examples: Path, given: argparse.Namespace
) -> None:
    """Fine-tunes a run, or goes on where it was stopped."""
    candidates = {} if objective == "sft" else {"choices": 4, "template": TEMPLATE}
    tree = {
        "finetune": {
            "run": str(run),
            "paths": [str(examples)],
            "objective": objective,
            "epochs": given.epochs,
            "validation_fraction": 0.1,
            **candidates,
        },
        "batch": {"rows": 16},
        "optimizer": {"learning_rate": given.learning_rate},
        "evaluation": {"times": 1, "bytes": 2000, "final_bytes": 2000},
    }
    path = folder / f"{objective}.yaml"
    path.write_text(json.dumps(tree), "utf-8")
    finetune(resolve(path, (), folder / objective), folder / objective)


def asked(run: Path, given: argparse.Namespace, *, end: bool) -> dict[str, Any]:
    """Returns the figures of a run's answers."""
    found = ask_run(run, "cloze", protocol=Protocol(count=given.count, seed=given.seed, end=end))
    top, every = found.top.results, found.every.results
    names = ("accuracy", "mean_confidence", "signed_gap", "ece", "nll")
    return {**{name: top[name] for name in names}, "every_ece": every["ece"]}


def show(found: list[Any]) -> None:
    """Prints a row for each state of the arms, and the changes paired over seeds."""
    columns = ("accuracy", "mean_confidence", "signed_gap", "ece", "every_ece", "nll")
    rows, changes = [], []
    for kind, own in kinds(found).items():
        for state in ("before", *OBJECTIVES):
            cells = [
                over_seeds(own, lambda e, n=name, s=state: estimate(getattr(getattr(e, s), n)))
                for name in columns
            ]
            rows.append([kind, state, *cells])
        for state in OBJECTIVES:

            def change(each: Any, name: str, state: str = state) -> Any:
                after, before = getattr(each, state), each.before
                return estimate(getattr(after, name) - getattr(before, name))

            cells = [
                over_seeds(own, lambda e, n=name, c=change: c(e, n), signed=True)
                for name in columns
            ]
            changes.append([kind, f"{state} less before", *cells])
    heads = ("accuracy", "confidence", "signed gap", "ECE, top", "ECE, every", "nll, right")
    print_table(["arms", "", *heads], rows)
    print_table(["arms", "", *heads], changes)


if __name__ == "__main__":
    main()
