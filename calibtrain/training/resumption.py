"""Which checkpoints a run goes on from: those whose metrics are all there.

Training writes a line of metrics every `log_every` steps and one for each evaluation, in the order
of their steps, so the configuration says which lines there are. A checkpoint is covered where all
lines up to its step are there; the evaluation of that very step may be missing, which a run that
was stopped in it still owes.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calibtrain.errors import UserError
from calibtrain.parallel import hosts
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder
from calibtrain.storage.metrics import begins_with, is_evaluation
from calibtrain.training.budget import due_steps
from calibtrain.training.plan import Plan

METRICS = "metrics"
"""What a checkpoint knows of the metrics before it: their `storage.metrics.fingerprint`."""

TRAINING, EVALUATION = "training", "evaluation"
Line = tuple[int, str]
"""The step and the kind of a line."""


def expected_lines(plan: Plan, step: int) -> list[Line]:
    """Returns the lines that a run has written once it has trained so many steps."""
    settings = plan.config.evaluation
    steps = plan.budget.steps
    logged = due_steps(step, steps, 1, plan.config.log_every)
    evaluated = due_steps(step, steps, settings.times, settings.every)
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


def resumable_steps(
    plan: Plan, run: RunFolder, observer: Callable[[Mapping[str, Any]], None]
) -> list[int]:
    """Returns the steps that training can go on from: of whole checkpoints with their metrics.

    Raises:
        UserError: where there are checkpoints and none of them has its metrics, or one is of a
            step that the run does not have. Every host comes here.
    """
    saved, latest = checkpoint.steps_saved(run.checkpoints), 0
    with hosts.together():
        if run.writes and saved:
            latest = _latest_covered(plan, run, observer, saved)
    latest = hosts.agreed(latest)
    return [step for step in saved if step <= latest]


def _latest_covered(
    plan: Plan, run: RunFolder, observer: Callable[[Mapping[str, Any]], None], saved: Sequence[int]
) -> int:
    folder, steps = run.checkpoints, plan.budget.steps
    if saved[-1] > steps:
        raise UserError(
            f"{folder / str(saved[-1])}: is beyond the {steps:,} steps of this run; give that "
            "folder its own name back, or remove it"
        )
    lines = run.read_metrics()
    trouble = {at: metrics_trouble(plan, run, at, lines) for at in saved}
    covered = [at for at in saved if trouble[at] is None]
    if not covered:
        raise UserError(
            f"{run.metrics}: {trouble[saved[0]]}, so that no checkpoint has all the "
            f"metrics before it; put that file back, or remove {folder} to train again from "
            "the start"
        )
    if covered[-1] < saved[-1]:
        observer(
            {
                "event": "note",
                "text": f"{run.metrics}: {trouble[saved[-1]]}; training goes back from "
                f"the checkpoint of step {saved[-1]:,} to that of step {covered[-1]:,}",
            }
        )
    return covered[-1]


def metrics_trouble(
    plan: Plan, run: RunFolder, step: int, lines: Sequence[Mapping[str, Any]]
) -> str | None:
    """Where a run's metrics are not those up to the checkpoint of a step, in words; None: they are.

    Args:
        plan: the run.
        run: its folder.
        step: of a whole checkpoint.
        lines: the lines of its metrics.
    """
    if lines_kept(plan, step, lines) is None:
        return first_difference(plan, step, lines)
    known = checkpoint.read_facts(run.checkpoints, step).get(METRICS)  # earlier versions: none
    if known is None or begins_with(run.metrics, known):
        return None
    return f"the first {known['lines']:,} lines are not those that training wrote"


def _alike(wanted: Sequence[Line], found: Sequence[Mapping[str, Any]]) -> int:
    """How many lines are as wanted, from the first on."""
    for at, (line, other) in enumerate(zip(wanted, found, strict=False)):
        if line != _line(other):
            return at
    return min(len(wanted), len(found))


def _line(found: Mapping[str, Any]) -> Line:
    return found["step"], EVALUATION if is_evaluation(found) else TRAINING
