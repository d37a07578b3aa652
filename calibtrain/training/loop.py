"""The training loop. At every step, in this order: train, log, evaluate, save.

A checkpoint therefore implies that every metric up to its step is on disk; `saving` writes it in
the background. A run is a function of its configuration: killed at any moment and started again, it
goes on from its last checkpoint and writes the same parameters and metrics, bit for bit. Runs that
differ in their seed alone go through the loop together (`group`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.errors import NonFiniteError
from calibtrain.training.begin import BegunRun
from calibtrain.training.engine import make_engine
from calibtrain.training.group import Group, groups
from calibtrain.training.optimizer import optimizer_of
from calibtrain.training.run_writer import Evaluator, RunWriter
from calibtrain.training.stopping import Stop, Stopped, stop_signals


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How the training of a run ended.

    Attributes:
        status: "done", "stopped" by a signal (it can be resumed), or "failed" (it diverged).
        step: steps trained in all; stopped at step 0, nothing is saved yet.
        summary: what run.json holds.
        results: final evaluations by corpus and split; empty if it is not done.
        error: why it failed.
    """

    status: str
    step: int
    summary: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Any]]
    error: NonFiniteError | None = None


def train(runs: Sequence[BegunRun], evaluators: Sequence[Evaluator]) -> list[Outcome]:
    """Trains runs, or goes on with those that are there.

    Args:
        runs: one, or several that differ in their seed alone.
        evaluators: what measures each of them, during training and at its end.

    Returns:
        The outcome of each run.

    Raises:
        UserError: for anything that the user can mend, except that a run diverges: its outcome
            tells that.
    """
    writers = [
        RunWriter(run.plan, run.folder, evaluator, run.observer, run.cache)
        for run, evaluator in zip(runs, evaluators, strict=True)
    ]
    outcomes: dict[Path, Outcome] = {}
    with stop_signals() as stop:
        for together, start in groups(writers):
            ended = _advance(together, start, stop)
            outcomes.update((r.run.path, each) for r, each in zip(together, ended, strict=True))
    return [outcomes[run.folder.path] for run in runs]


def _advance(writers: Sequence[RunWriter], start: int, stop: Stop) -> list[Outcome]:
    """Trains runs of the same length from a step on."""
    plan, status = writers[0].plan, "done"
    stop.begin()
    engine = make_engine([r.plan for r in writers], optimizer_of(plan.config, plan.budget.steps))
    group = Group(writers, engine, stop, start)
    states = group.begin()
    with group.end_told():
        try:
            group.evaluate_owed(states)
            for batch in group.batches():
                # 1. Train. Metrics are looked at one step behind, so that no device waits for us.
                states, metrics = engine.advance(states, batch, group.ask())
                group.count(metrics)
                logs, evaluates, saves = group.due()
                # 2. Log.
                if logs:
                    group.log(states, metrics)
                if evaluates or saves:
                    group.check(metrics)
                # 3. Evaluate.
                if evaluates:
                    group.evaluate(states)
                # 4. Save: copy the state. A thread writes it.
                if saves:
                    group.save(states)
            group.check_last()
            group.save(states)
            group.finish(states)
        except Stopped:
            status = "stopped"
            if group.step:
                group.save(states)
        group.wait_for_save()
    return [_outcome(writer, status, group.step) for writer in writers]


def _outcome(writer: RunWriter, status: str, step: int) -> Outcome:
    if writer.error is not None:
        written = writer.run.read_summary()
        told = {} if written is None else written.document()
        return Outcome("failed", step, told, {}, writer.error)
    summary = writer.summarise(status, step)
    if status == "stopped":
        return Outcome(status, step, summary, {})
    writer.observer({"event": "final", "results": writer.results})
    return Outcome(status, step, summary, writer.results)
