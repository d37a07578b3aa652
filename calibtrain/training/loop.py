"""The training loop. Its order at a step is fixed: train, log, evaluate, save.

A run is a function of its configuration: killed at any moment and started again, it goes on from
its last checkpoint and writes the same parameters and the same metrics, bit for bit. Replicas, runs
that differ in their seed alone, go through the loop together.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calibtrain.errors import NonFiniteError, TransientError, require_finite
from calibtrain.parallel import hosts
from calibtrain.training.begin import BegunRun
from calibtrain.training.engine import make_engine
from calibtrain.training.optimizer import optimizer_of
from calibtrain.training.plan import Plan
from calibtrain.training.record import Evaluator, Record
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

    Raises:
        UserError: for anything that the user can mend, except that a run diverges: its outcome
            tells that.
    """
    records = [
        Record(run.plan, run.folder, evaluator, run.observer)
        for run, evaluator in zip(runs, evaluators, strict=True)
    ]
    outcomes: dict[Path, Outcome] = {}
    with stop_signals() as stop:
        for group, start in _groups(records):
            ended = _advance(group, start, stop)
            outcomes.update((record.run.path, ended[i]) for i, record in enumerate(group))
    return [outcomes[run.folder.path] for run in runs]


def _groups(records: Sequence[Record]) -> list[tuple[list[Record], int]]:
    """Which runs go through the loop together, and from which step.

    A budget in bytes may end a step earlier for one seed than for another, which is another
    learning-rate schedule; and runs that were begun apart may have no checkpoint in common. One
    that has diverged, far behind, must not take the others back.
    """
    saved = {id(record): record.checkpoints() for record in records}
    alike: dict[tuple[int, bool, bool], list[Record]] = {}
    for record in records:
        steps = record.plan.budget.steps
        summary = record.run.read_summary()
        failed = bool(hosts.agreed(summary is not None and summary.status == "failed"))
        alike.setdefault((steps, steps in saved[id(record)], failed), []).append(record)
    groups = []
    for group in alike.values():
        common = set.intersection(*(set(saved[id(record)]) for record in group))
        by_start: dict[int, list[Record]] = {}
        for record in group:
            start = max(common) if common else max(saved[id(record)], default=0)
            by_start.setdefault(hosts.agreed(start), []).append(record)
        groups += [(some, start) for start, some in by_start.items()]
    # those that are done first: a signal while others train must not make them look stopped
    return sorted(groups, key=lambda group: -group[1])


def _advance(records: Sequence[Record], step: int, stop: Stop) -> list[Outcome]:
    """Train runs of the same length from a step on."""
    plan = records[0].plan
    steps, log_every = plan.budget.steps, plan.config.log_every
    stop.begin()
    engine = make_engine([r.plan for r in records], optimizer_of(plan.config, steps))
    folders = [record.run.checkpoints for record in records]
    states = engine.restore(folders, step) if step else engine.begin()
    for record in records:
        record.begin(step, engine.memory)
    meter = _Meter(plan, records)

    def alive() -> list[tuple[int, Record]]:
        return [(i, record) for i, record in enumerate(records) if record.error is None]

    def for_each(action: Callable[[int, Record], None]) -> None:
        """Do something with every run; one that has diverged is given up."""
        for index, record in alive():
            try:
                action(index, record)
            except NonFiniteError as error:
                record.give_up(step, error)

    def check(metrics: Any, at: int) -> bool:
        """Whether a host was asked to stop; gives up runs whose metrics are not finite."""
        figures = engine.figures(metrics)
        stopping = [each.pop("stop", 0.0) > 0 for each in figures]
        for_each(lambda index, record: require_finite(figures[index], at))
        return any(stopping)

    def log() -> None:
        running, figures = engine.running(states), engine.figures(metrics)
        for_each(
            lambda i, record: record.log(step, running[i], figures[i]["gradient_norm"]),
        )

    def evaluate(owed: Callable[[Record], bool] = lambda record: True) -> None:
        stop.pause()
        for_each(
            lambda i, record: (
                record.evaluate(step, engine.replica(states, i), stops_now)
                if owed(record)
                else None
            )
        )
        meter.restart()

    def save() -> None:
        stop.pause()
        for_each(lambda i, record: record.save(step, engine.replica(states, i)))
        # only now, so that there is always a step of which all have a checkpoint
        for_each(lambda i, record: record.prune())
        meter.restart()

    # Hosts must stop at the same step: they agree on it in the steps, not in between.
    stops_now = (lambda: False) if hosts.are_many() else stop.is_set
    status = "done"
    with _failure_told(records, lambda: step):
        try:
            # Killed or stopped in mid-evaluation after its checkpoint: the line is still owed.
            evaluate(lambda record: record.owes_evaluation(step))
            stream = engine.batches(step) if step < steps else iter(())
            lagging = None
            stopping = stops_now()
            while step < steps and not stopping and alive():
                states, metrics = engine.advance(states, next(stream), stop.is_set())
                step += 1
                stop.step()
                stopping = stops_now()
                if lagging is not None:  # one step behind, so that the device never waits for us
                    stopping = check(lagging, step - 1) or stopping
                lagging = metrics
                meter.tick(step)
                if step % log_every == 0 or step == steps:
                    log()
                owed, due = records[0].evaluation_is_due(step), records[0].checkpoint_is_due(step)
                if owed or due:
                    check(metrics, step)
                if owed:
                    evaluate()
                if due:
                    save()
            stop.pause()
            if lagging is not None:
                check(lagging, step)
            if stopping:
                raise Stopped
            save()
            for_each(lambda i, record: record.finish(step, engine.replica(states, i), stops_now))
        except Stopped:
            status = "stopped"
            if step:
                save()
    return [_outcome(record, status, step) for record in records]


def _outcome(record: Record, status: str, step: int) -> Outcome:
    if record.error is not None:
        written = record.run.read_summary()
        told = {} if written is None else written.document()
        return Outcome("failed", step, told, {}, record.error)
    summary = record.summarise(status, step)
    if status == "stopped":
        return Outcome(status, step, summary, {})
    record.observer({"event": "final", "results": record.results})
    return Outcome(status, step, summary, record.results)


@contextmanager
def _failure_told(records: Sequence[Record], step: Callable[[], int]) -> Iterator[None]:
    """Write into each run.json why training failed, unless another host is lost."""
    try:
        with hosts.losses():
            yield
    except TransientError:
        raise
    except Exception as error:
        for record in records:
            if record.error is None:
                record.fail(step(), error)
        raise


class _Meter:
    """Tells the observers about progress, at most twice a second."""

    def __init__(self, plan: Plan, records: Sequence[Record]):
        self.plan = plan
        self.records = records
        self.restart()

    def restart(self) -> None:
        """Forget the time that went into something other than steps."""
        self.since: float | None = None
        self.told = 0.0

    def tick(self, step: int) -> None:
        """A step was dispatched, and the one before it is done."""
        now = time.monotonic()
        if self.since is None:
            self.since, self.first = now, step
            return
        if now - self.told < 0.5 and step != self.plan.budget.steps:
            return
        self.told = now
        rate = (step - self.first) / max(1e-9, now - self.since)
        event = {
            "event": "progress",
            "step": step,
            "steps": self.plan.budget.steps,
            "tokens_per_second": rate * self.plan.batches.slots_per_step,
            "seconds_left": (self.plan.budget.steps - step) / max(1e-9, rate),
        }
        for record in self.records:
            if record.error is None:
                record.observer(event)
