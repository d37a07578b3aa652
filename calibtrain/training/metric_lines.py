"""Which lines `metrics.jsonl` holds after so many steps: they follow from the configuration.

Training writes a line every `log_every` steps and one for each evaluation, in the order of their
steps. A checkpoint is covered where all lines up to its step are there; the evaluation of that very
step may be missing, which a run that was stopped in it still owes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from calibtrain.storage.metrics import is_evaluation
from calibtrain.training.plan import Plan

TRAINING, EVALUATION = "training", "evaluation"
Line = tuple[int, str]
"""The step and the kind of a line."""


def expected_lines(plan: Plan, step: int) -> list[Line]:
    """Returns the lines that a run has written once it has trained so many steps."""
    settings = plan.config.evaluation
    logged = plan.due_steps(step, 1, plan.config.log_every)
    evaluated = plan.due_steps(step, settings.times, settings.every)
    lines = [(at, TRAINING) for at in logged] + [(at, EVALUATION) for at in evaluated]
    return sorted(lines, key=lambda line: (line[0], line[1] == EVALUATION))


def lines_kept(plan: Plan, step: int, found: Sequence[Mapping[str, Any]]) -> int | None:
    """Returns how many of the lines found a run keeps that goes on from a checkpoint.

    None means that the checkpoint is not covered: a line is missing, or in the place of another.
    """
    wanted = expected_lines(plan, step)
    alike = _alike(wanted, found)
    owed = bool(wanted) and wanted[-1] == (step, EVALUATION)
    return alike if alike >= len(wanted) - owed else None


def first_difference(plan: Plan, step: int, found: Sequence[Mapping[str, Any]]) -> str:
    """Returns in words where the lines found are not those that are wanted up to a step."""
    wanted = expected_lines(plan, step)
    at = _alike(wanted, found)
    text = f"line {at + 1} should be that of the {wanted[at][1]} of step {wanted[at][0]:,}, and "
    if at >= len(found):
        return text + "is not there"
    step, kind = _line(found[at])
    return text + f"is that of the {kind} of step {step:,}"


def _alike(wanted: Sequence[Line], found: Sequence[Mapping[str, Any]]) -> int:
    """How many lines are as wanted, from the first on."""
    for at, (line, other) in enumerate(zip(wanted, found, strict=False)):
        if line != _line(other):
            return at
    return min(len(wanted), len(found))


def _line(found: Mapping[str, Any]) -> Line:
    return found["step"], EVALUATION if is_evaluation(found) else TRAINING
