"""The figure of a fine-tuning: held-out answers and preferences along its steps."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from calibtrain.figures.panels import Figure, Panel, gap_axis, gap_marks, level, line, plot
from calibtrain.metrics.quantities import number
from calibtrain.runs.results import Measured, RunResults

COLOUR = "var(--cat-0)"
_ANSWERS: Sequence[tuple[str, str, str]] = (
    ("answers/nll", "Held-out answers: NLL", "nats/token"),
    ("answers/ece", "Held-out answers: ECE", "ECE (0 to 1)"),
    ("answers/signed_gap", "Held-out answers: signed gap", ""),
)
_PREFERENCES: Sequence[tuple[str, str, str]] = (
    ("preference/loss", "Preferences: loss", "nats/pair"),
    ("preference/accuracy", "Preferences: accuracy", "share of pairs"),
    ("preference/mean_margin", "Preferences: mean margin", "nats"),
    ("preference/ece", "Preferences: ECE", "ECE (0 to 1)"),
)
_CANDIDATES: Sequence[tuple[str, str, str]] = (
    ("candidates/nll", "Candidates: NLL of the right one", "nats/question"),
    ("candidates/accuracy", "Candidates: accuracy", "share of questions"),
    ("candidates/top_ece", "Top candidate: ECE", "ECE (0 to 1)"),
    ("candidates/every_ece", "Every candidate: ECE", "ECE (0 to 1)"),
)
BEFORE: Mapping[str, float] = {
    "preference/loss": math.log(2),
    "preference/accuracy": 0.5,
    "preference/mean_margin": 0.0,
    "preference/ece": 0.0,
}
"""What preferences are at step 0, where the model is its own reference: every margin is 0."""


def finetuning_figures(run: RunResults) -> list[Figure]:
    """Returns figures of held-out answers, and of preferences or candidates if there are any."""
    found = []
    for anchor, title, caption, parts in (
        (
            "answers",
            "Held-out answers along fine-tuning",
            "The objective on the training examples, and the answers to held-out prompts.",
            _ANSWERS,
        ),
        (
            "preferences",
            "Preferences along fine-tuning",
            "Held-out pairs, judged by how much more the chosen answer has gained on the starting "
            "model than the rejected one (the margin). Step 0 is the starting model, where every "
            "margin is 0 and the judgement is a coin’s.",
            _PREFERENCES,
        ),
        (
            "candidates",
            "Candidates along fine-tuning",
            "Held-out questions: the confidence of a candidate is the softmax of the candidates’ "
            "log-probabilities.",
            _CANDIDATES,
        ),
    ):
        panels = [
            _panel(run.measured, *part)
            for part in parts
            if any(part[0] in m.values for m in run.measured)
        ]
        if panels and anchor == "answers" and run.training:
            panels.insert(0, _panel(run.training, "loss", "Training loss", "nats"))
        if panels:
            columns: Any = "quarters" if len(panels) == 4 else "thirds"
            found.append(Figure(anchor, title, caption, tuple(panels), columns=columns))
    return found


def _panel(measured: Sequence[Measured], key: str, title: str, unit: str) -> Panel:
    points = [(m.step, m.values[key]) for m in measured if key in m.values]
    if key in BEFORE and (not points or points[0][0] > 0):
        points = [(0, BEFORE[key]), *points]
    gap = key.endswith("signed_gap")
    said = [(x, y, f"step {x:,}<br>{number(y, 4, signed=gap)}") for x, y in points]
    marks = gap_marks("signed_gap" if gap else key)
    y = gap_axis(v for _, v in points) if gap else {"title": unit, "rangemode": "tozero"}
    if key == "preference/accuracy":
        marks["shapes"] = [level(0.5, "a coin’s")]
        y = {"title": unit, "range": [0, 1.05]}
    drawn = line(said, colour=COLOUR, group=title, marks=len(said) < 40)
    return Panel(title, plot([drawn], x={"title": "step", "rangemode": "tozero"}, y=y, **marks))
