"""The training loop. At every step, in this order: train, log, evaluate, save.

A checkpoint at a step therefore implies that every metric up to it is on disk. A run is a function
of its configuration: killed at any moment and started again, it goes on from its last checkpoint
and writes the same parameters and the same metrics, bit for bit. Runs that differ in their seed
alone go through the loop together (`group`).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from calibtrain.config import Config
from calibtrain.errors import NonFiniteError
from calibtrain.runs.folder import RunFolder
from calibtrain.storage.compiled import open_compiled
from calibtrain.training.engine import make_engine
from calibtrain.training.folders import held_folders
from calibtrain.training.group import Group, groups
from calibtrain.training.optimizer import optimizer_of
from calibtrain.training.plan import Plan, make_plans
from calibtrain.training.record import Evaluator, Observer, Record
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


@dataclasses.dataclass(frozen=True)
class Member:
    """A run to be trained, alone or with others that differ in their seed alone.

    Attributes:
        config: what to train.
        path: the run folder.
        observer: is told what happens.
    """

    config: Config
    path: Path
    observer: Observer = lambda event: None


def train(
    members: Sequence[Member],
    *,
    cache: Path,
    evaluator: Callable[[Plan, RunFolder, Observer], Evaluator],
    planner: Callable[[Sequence[Config], Path, Observer], list[Plan]] = make_plans,
) -> list[Outcome]:
    """Trains runs, or goes on with those that are there.

    Args:
        members: one run, or several that differ in their seed alone.
        cache: where prepared data is kept.
        evaluator: makes the evaluation of a plan.
        planner: prepares what is trained on, and says what will be done.

    Returns:
        The outcome of each run, in the order of `members`.

    Raises:
        UserError: for anything that the user can mend, except that a run diverges: its outcome
            tells that. A run folder made by this call is removed again if it holds no checkpoint.
    """
    configs, observers = [m.config for m in members], [m.observer for m in members]

    def plan() -> list[Plan]:
        return planner(configs, cache, observers[0])

    with held_folders(configs, [m.path for m in members], plan) as opened:
        jax.config.update("jax_compilation_cache_dir", str(open_compiled(cache / "compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        records = [
            Record(plan, run, evaluator(plan, run, observer), observer)
            for (plan, run), observer in zip(opened, observers, strict=True)
        ]
        outcomes: dict[Path, Outcome] = {}
        with stop_signals() as stop:
            for together, start in groups(records):
                ended = _advance(together, start, stop)
                outcomes.update((r.run.path, e) for r, e in zip(together, ended, strict=True))
        return [outcomes[record.run.path] for record in records]


def _advance(records: Sequence[Record], start: int, stop: Stop) -> list[Outcome]:
    """Trains runs of the same length from a step on."""
    plan, status = records[0].plan, "done"
    stop.begin()
    engine = make_engine([r.plan for r in records], optimizer_of(plan.config, plan.budget.steps))
    group = Group(records, engine, stop, start)
    states = group.begin()
    with group.failure_told():
        try:
            group.evaluate_owed(states)
            batches = group.batches()
            while group.goes_on():
                # 1. Train. Metrics are looked at one step behind, so that no device waits for us.
                states, metrics = engine.advance(states, next(batches), stop.is_set())
                group.count(metrics)
                logs, evaluates, saves = plan.due(group.step)
                # 2. Log.
                if logs:
                    group.log(states, metrics)
                if evaluates or saves:
                    group.check(metrics)
                # 3. Evaluate.
                if evaluates:
                    group.evaluate(states)
                # 4. Save.
                if saves:
                    group.save(states)
            group.check_last()
            group.save(states)
            group.finish(states)
        except Stopped:
            status = "stopped"
            if group.step:
                group.save(states)
    return [_outcome(record, status, group.step) for record in records]


def _outcome(record: Record, status: str, step: int) -> Outcome:
    if record.error is not None:
        return Outcome("failed", step, record.run.read_summary(), {}, record.error)
    summary = record.summarise(status, step)
    if status == "stopped":
        return Outcome(status, step, summary, {})
    record.observer({"event": "final", "results": record.results})
    return Outcome(status, step, summary, record.results)
