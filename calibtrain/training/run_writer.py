"""What is written of one run while it trains: metrics, evaluations, checkpoints, run.json.

Runs that are trained together have a writer each, and their folders are the same as if each had
been trained by itself. One that diverges is given up; the others go on.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from calibtrain.errors import (
    DIVERGED_ADVICE,
    NonFiniteError,
    TransientError,
    UserError,
    require_finite,
)
from calibtrain.models import Params
from calibtrain.parallel import hosts
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder
from calibtrain.storage.compiled import copy_new_programs
from calibtrain.storage.places import absolute, in_bucket
from calibtrain.training.optimizer import learning_rate_schedule
from calibtrain.training.plan import Plan
from calibtrain.training.resumption import METRICS, lines_kept
from calibtrain.training.state import TrainState, all_finite
from calibtrain.training.summary import describe_run

_log = logging.getLogger(__name__)

PROGRAMS = "compiled"
"""The folder of a run in a bucket for programs that it compiled."""

Observer = Callable[[Mapping[str, Any]], None]
"""Is told what happens: {"event": "tokenised" | "start" | "progress" | "metrics" | "measured" |
"measuring" | "evaluation" | "saved" | "final" | "note", ...}; metrics have the `line` that was
written, what is measured has the whole `result` of an evaluation, and a note has a `text` that the
user must see."""


class Evaluator(Protocol):
    """What the loop asks of the object that evaluates a run, which is made before it is called."""

    def during(self, params: Params, step: int, stop: Callable[[], bool]) -> Mapping[str, float]:
        """Evaluates during training; the results go into the metrics file as eval/*."""

    def final(
        self, params: Params, step: int, stop: Callable[[], bool]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Evaluates at the end, skipping what is done; returns results by corpus and split."""


class RunWriter:
    """The files of one run, as its training writes them.

    Attributes:
        plan: the run.
        run: its folder.
        observer: is told what happens.
        cache: where compiled programs are kept; a run in a bucket has a copy of its own.
        results: final evaluations by corpus and split, once it is done.
        error: why it was given up; None while all is well.
    """

    def __init__(
        self,
        plan: Plan,
        run: RunFolder,
        evaluator: Evaluator,
        observer: Observer,
        cache: Path | None = None,
    ):
        self.plan, self.run, self.observer, self.cache = plan, run, observer, cache
        self.results: Mapping[str, Mapping[str, Any]] = {}
        self.error: NonFiniteError | None = None
        self._evaluator = evaluator
        self._schedule = learning_rate_schedule(plan.config.optimizer, plan.budget.steps)
        self._memory: Mapping[str, int] = {}
        self._saved = 0

    def begin(self, step: int, memory: Mapping[str, int]) -> None:
        """Goes on from a step; what was written of later steps is dropped, to be written again."""
        self._saved = step
        checkpoint.forget(self.run.checkpoints, after=step)
        self._memory = memory
        if self.run.writes:
            self.run.rewind_metrics(lines_kept(self.plan, step, self.run.read_metrics()) or 0)
        before = self.run.read_summary() if step else None
        seconds = None if before is None else before.seconds
        self._seconds = seconds or 0.0
        if step and seconds is None:
            text = f"{self.run.path / 'run.json'}: is missing; seconds are counted from here on"
            self.observer({"event": "note", "text": text})
        self._began = time.monotonic()
        self.observer({"event": "start", "resumed_from": step, **self.summarise("running", step)})

    def summarise(self, status: str, step: int, **more: str) -> dict[str, Any]:
        """Writes run.json, and returns what it holds."""
        seconds = self._seconds + time.monotonic() - self._began
        name = absolute(self.run.path).name
        about = describe_run(self.plan, name, self._memory, status, step, seconds, **more)
        self.run.write_summary(about)
        return about.document()

    def log(self, step: int, running: Mapping[str, float], gradient_norm: float) -> None:
        """Writes a line of training metrics."""
        weight = running["weight"]
        figures = {
            "loss": running["loss"] / weight,
            **{
                name: value / weight
                for name, value in running.items()
                if name == "nll" or name.startswith("loss/")
            },
            "mean_confidence": running["confidence"] / weight,
            "accuracy": running["correct"] / weight,
            "gradient_norm": gradient_norm,
            "learning_rate": float(self._schedule(step - 1)),
        }
        require_finite(figures, step)
        line = {f"train/{name}": value for name, value in figures.items()}
        self._write({"step": step, **line, **self._seen(step)})

    def owes_evaluation(self, step: int) -> bool:
        """Whether a run that goes on from a step was killed in, or before, its evaluation there."""
        due = step > 0 and self.plan.due(step).evaluates
        return bool(hosts.agreed(due and not self._was_evaluated(step)))

    def evaluate(self, step: int, state: TrainState, stop: Callable[[], bool]) -> None:
        """Evaluates, and writes a line of metrics."""
        _require_sound(state, step)
        results = self._evaluator.during(state.params, step, stop)
        line = {f"eval/{name}": value for name, value in results.items()}
        self._write({"step": step, **self._seen(step), **line})
        self.observer({"event": "evaluation", "step": step, **results})

    def begin_save(self, step: int, state: TrainState) -> RunSave | None:
        """Begins a checkpoint; None where it is the one that was begun last, or gone on from."""
        if step == self._saved:
            return None
        _require_sound(state, step)
        facts = {METRICS: self.run.metrics_fingerprint()} if self.run.writes else {}
        begun = checkpoint.begin(self.run.checkpoints, step, state, self.plan.identity, facts)
        self._saved = step
        return RunSave(self, step, begun)

    def finish(self, step: int, state: TrainState, stop: Callable[[], bool]) -> None:
        """Runs the final evaluations."""
        self.results = self._evaluator.final(state.params, step, stop)

    def give_up(self, step: int, error: NonFiniteError) -> None:
        """Writes why this run cannot go on."""
        saved = checkpoint.steps_saved(self.run.checkpoints)
        kept = (
            f"the last good checkpoint is step {saved[-1]}"
            if saved
            else "no checkpoint was made yet"
        )
        self.error = NonFiniteError(f"{self.run.path}: {error}; {kept}. {DIVERGED_ADVICE}")
        self.fail(step, self.error)

    def fail(self, step: int, error: Exception) -> None:
        """Writes into run.json why a run failed; a full disk is not a second error."""
        with suppress(UserError):
            self.summarise("failed", step, error=str(error) or type(error).__name__)

    def _write(self, line: Mapping[str, Any]) -> None:
        self.run.append_metrics(line)
        self.observer({"event": "metrics", "line": line})

    def _seen(self, step: int) -> dict[str, int]:
        tokens, raw = self.plan.progress_at(step)
        return {"train/tokens": tokens, "train/bytes": raw}

    def _was_evaluated(self, step: int) -> bool:
        return any(line["step"] == step and "eval/nll" in line for line in self.run.read_metrics())


@dataclasses.dataclass(frozen=True)
class RunSave:
    """A checkpoint of a run that was begun: what `saving.Saves` has a thread finish."""

    writer: RunWriter
    step: int
    begun: checkpoint.Unsealed

    def write(self) -> None:
        self.begun.write()

    def seal(self) -> None:
        self.writer.run.settle()  # metrics up to its step, and the lock
        self.begun.seal()

    def prune(self) -> None:
        plan = self.writer.plan
        checkpoint.prune(
            self.writer.run.checkpoints, plan.config.checkpoints.keep, lambda at: plan.due(at).saves
        )
        if self.writer.cache is not None and in_bucket(self.writer.run.path):
            try:
                copy_new_programs(self.writer.cache, self.writer.run.path / PROGRAMS)
            except (OSError, UserError, TransientError) as error:  # they are compiled again then
                _log.warning("compiled programs are not kept beside the run: %s", error)

    def tell(self) -> None:
        self.writer.observer({"event": "saved", "step": self.step})


def _require_sound(state: TrainState, step: int) -> None:
    if not all_finite(state):
        raise NonFiniteError(f"a parameter, or its optimizer state, is not finite at step {step}")
