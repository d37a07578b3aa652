"""Runs that are trained together: each has a writer, and one that diverges is given up.

Runs that differ in their seed alone go through the loop together; a single run is a group of one.
Hosts that train a run together stop at the same step: they agree on it in the steps.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from calibtrain.errors import NonFiniteError, TransientError, require_finite
from calibtrain.parallel import hosts
from calibtrain.runs.array_store import import_orbax
from calibtrain.training.budget import Due
from calibtrain.training.engine import Engine
from calibtrain.training.plan import Plan
from calibtrain.training.resumption import resumable_steps
from calibtrain.training.run_writer import RunWriter
from calibtrain.training.saving import Progress, Saves
from calibtrain.training.state import all_finite
from calibtrain.training.stopping import Ask, Stop, Stopped

_LOOK = 0.05
"""Seconds between two looks of several hosts at a save that they wait for."""


def groups(writers: Sequence[RunWriter]) -> list[tuple[list[RunWriter], int]]:
    """Returns which runs go through the loop together, and from which step each group does.

    A budget in bytes may end a step earlier for one seed than for another, which is another
    learning-rate schedule; and runs that were begun apart may have no checkpoint in common. One
    that has diverged, far behind, must not take the others back.
    """
    saved = {
        id(writer): resumable_steps(writer.plan, writer.run, writer.observer) for writer in writers
    }
    alike: dict[tuple[int, bool, bool], list[RunWriter]] = {}
    for writer in writers:
        steps = writer.plan.budget.steps
        summary = writer.run.read_summary()
        failed = bool(hosts.agreed(summary is not None and summary.status == "failed"))
        alike.setdefault((steps, steps in saved[id(writer)], failed), []).append(writer)
    groups = []
    for group in alike.values():
        common = set.intersection(*(set(saved[id(writer)]) for writer in group))
        by_start: dict[int, list[RunWriter]] = {}
        for writer in group:
            start = max(common) if common else max(saved[id(writer)], default=0)
            by_start.setdefault(hosts.agreed(start), []).append(writer)
        groups += [(some, start) for start, some in by_start.items()]
    # those that are done first: a signal while others train must not make them look stopped
    return sorted(groups, key=lambda group: -group[1])


class Group:
    """The writers of runs of the same length, and where they are.

    Attributes:
        step: steps trained in all.
        saves: their checkpoints, which a thread writes.
    """

    def __init__(self, writers: Sequence[RunWriter], engine: Engine, stop: Stop, start: int):
        self.step = start
        self._writers, self._engine, self._stop = writers, engine, stop
        self._steps = writers[0].plan.budget.steps
        self._meter = _Meter(writers[0].plan, writers)
        self._lagging: Any = None
        self._stopping = False
        self.saves = Saves(writers[0].plan.config.checkpoints.minutes)
        self._saved, self._saves_now = start, False

    def begin(self) -> Any:
        """The states that training goes on from."""
        import_orbax()  # not at the first save, which a signal may ask for
        folders = [writer.run.checkpoints for writer in self._writers]
        states = self._engine.restore(folders, self.step) if self.step else self._engine.begin()
        for index, writer in enumerate(self._writers):
            all_finite(self._engine.replica(states, index))  # compiled now, for the same reason
            writer.begin(self.step, self._engine.memory)
        return states

    def batches(self) -> Iterator[Any]:
        """The batches that are left; the next one in a long step comes shortly before its end."""
        self._stopping = self._stops_now()
        batches = self._engine.batches(self.step) if self.step < self._steps else iter(())
        while self._goes_on():
            batch = next(batches)
            self._stop.wait_in_step()
            self._stopping = self._stopping or self._stops_now()
            if not self._goes_on():
                return
            yield batch

    def _goes_on(self) -> bool:
        """Whether there is another step to train."""
        return self.step < self._steps and not self._stopping and bool(self._alive())

    def ask(self) -> Ask:
        """What this host asks for, with the next step."""
        if self.saves.progress() == Progress.FAILED:
            return Ask.FAIL
        if self._stop.is_set():
            return Ask.STOP
        return Ask.SAVE if hosts.is_primary() and self.saves.are_due() else Ask.NOTHING

    def count(self, metrics: Any) -> None:
        """Counts a step that was dispatched, and checks the one before it.

        Raises:
            UserError: where a checkpoint could not be written.
        """
        self.step += 1
        self.saves.poll()
        asked, at = Ask.NOTHING, self.step - 1
        if self._lagging is not None:
            asked = self._check(self._lagging, at)
        self._stop.step()
        if not hosts.are_many():
            asked, at = self.ask(), self.step
        if asked == Ask.FAIL:
            self._fail()
        self._stopping = asked == Ask.STOP
        # a save that was asked for before the last one began is that one
        self._saves_now = asked == Ask.SAVE and self._saved < at
        self._lagging = metrics
        self._meter.tick(self.step)

    def due(self) -> Due:
        """What follows this step; time may ask for a checkpoint besides the schedule."""
        due = self._writers[0].plan.due(self.step)
        return due._replace(saves=due.saves or self._saves_now)

    def check(self, metrics: Any) -> None:
        """Gives up runs whose metrics at this step are not finite; waits for the device."""
        self._check(metrics, self.step)

    def check_last(self) -> None:
        """Checks the last step.

        Raises:
            Stopped: where a signal asked for it.
        """
        self._stop.pause()
        if self._lagging is not None:
            self._check(self._lagging, self.step)
        if self._stopping:
            raise Stopped

    def log(self, states: Any, metrics: Any) -> None:
        """Writes a line of training metrics of each run."""
        running, figures = self._engine.running(states), self._engine.figures(metrics)
        self._for_each(
            lambda i, writer: writer.log(self.step, running[i], figures[i]["gradient_norm"])
        )

    def evaluate(self, states: Any) -> None:
        """Evaluates each run."""
        self._stop.pause()
        self._for_each(lambda i, writer: self._evaluate(states, i, writer))
        self._meter.restart()

    def evaluate_owed(self, states: Any) -> None:
        """Evaluates the runs that were killed or stopped in their evaluation of this step."""

        def evaluate(index: int, writer: RunWriter) -> None:
            if writer.owes_evaluation(self.step):
                self._evaluate(states, index, writer)

        self._stop.pause()
        self._for_each(evaluate)
        self._meter.restart()

    def save(self, states: Any) -> None:
        """Begins a checkpoint of each run, once the one before is whole."""
        self.wait_for_save()
        begun: list[Any] = []

        def begin(index: int, writer: RunWriter) -> None:
            save = writer.begin_save(self.step, self._engine.replica(states, index))
            begun.extend([save] if save else [])

        self._for_each(begin)
        self.saves.begin(begun)
        self._saved = self.step
        self._meter.restart()

    def wait_for_save(self) -> None:
        """Waits until the checkpoint under way is whole.

        Raises:
            UserError: where it could not be written; on all hosts.
        """
        self._stop.pause()
        if hosts.are_many():
            # one whose save failed must not wait for those that wait for its part
            while (progress := hosts.largest(self.saves.progress())) == Progress.UNDER_WAY:
                time.sleep(_LOOK)
            if progress == Progress.FAILED:
                self._fail()
        with hosts.together():
            self.saves.wait()

    def _fail(self) -> None:
        """Ends all hosts where a checkpoint could not be written on one of them."""
        with hosts.together():
            try:
                self.saves.require()
            finally:
                self.saves.abandon()

    def finish(self, states: Any) -> None:
        """Runs the final evaluations of each run."""
        self._for_each(
            lambda i, writer: writer.finish(
                self.step, self._engine.replica(states, i), self._stops_now
            )
        )

    @contextmanager
    def end_told(self) -> Iterator[None]:
        """Ends the save under way, and writes into each run.json why training failed if it did.

        Where another host is lost, the save is abandoned and nothing is written.
        """
        try:
            with hosts.losses(), self.saves, hosts.losses():  # `saves` is to know of a loss
                yield
        except TransientError:
            raise
        except Exception as error:
            for _, writer in self._alive():
                writer.fail(self.step, error)
            raise

    def _evaluate(self, states: Any, index: int, writer: RunWriter) -> None:
        writer.evaluate(self.step, self._engine.replica(states, index), self._stops_now)

    def _stops_now(self) -> bool:
        """Whether this process stops by itself; several hosts agree in the steps instead."""
        return not hosts.are_many() and self._stop.is_set()

    def _alive(self) -> list[tuple[int, RunWriter]]:
        return [(i, writer) for i, writer in enumerate(self._writers) if writer.error is None]

    def _for_each(self, action: Callable[[int, RunWriter], None]) -> None:
        """Does something with every run; one that has diverged is given up."""
        for index, writer in self._alive():
            try:
                action(index, writer)
            except NonFiniteError as error:
                self.wait_for_save()  # it may be the last good checkpoint
                writer.give_up(self.step, error)

    def _check(self, metrics: Any, at: int) -> Ask:
        """Gives up runs whose metrics are not finite; returns what hosts asked for, if several."""
        figures = self._engine.figures(metrics)
        asked = max(each.pop("asked", 0.0) for each in figures)
        self._for_each(lambda index, writer: require_finite(figures[index], at))
        return Ask(int(asked))


class _Meter:
    """Tells the observers about progress, at most twice a second."""

    def __init__(self, plan: Plan, writers: Sequence[RunWriter]):
        self.plan = plan
        self.writers = writers
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
        for writer in self.writers:
            if writer.error is None:
                writer.observer(event)
