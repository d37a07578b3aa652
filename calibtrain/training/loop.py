"""The training loop. Its order at a step is fixed: train, log, evaluate, save.

A run is a function of its configuration: killed at any moment and started again, it goes on from
its last checkpoint and writes the same parameters and the same metrics, bit for bit.
"""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import jax

from calibtrain.config import Config
from calibtrain.errors import UserError
from calibtrain.models import Params
from calibtrain.parallel import hosts
from calibtrain.places import absolute, place
from calibtrain.training import checkpoint
from calibtrain.training.engine import make_engine
from calibtrain.training.finite import ADVICE, NonFiniteError, all_finite, require_finite
from calibtrain.training.optimizer import learning_rate_schedule, make_optimizer
from calibtrain.training.plan import Plan, make_plan
from calibtrain.training.run import RunFolder
from calibtrain.training.summary import describe_run

Observer = Callable[[Mapping[str, Any]], None]
"""Is told what happens: {"event": "start" | "progress" | "evaluation" | "saved" | "final", ...}."""


class Stopped(Exception):
    """Raised by an evaluation that was asked to stop."""


class Evaluator(Protocol):
    """What the loop asks of an evaluation; made for a plan before the run folder is written."""

    def during(self, params: Params, step: int, stop: Callable[[], bool]) -> Mapping[str, float]:
        """Evaluate in the midst of training; the results go into the metrics file as eval/*."""

    def final(
        self, params: Params, step: int, stop: Callable[[], bool]
    ) -> Mapping[str, Mapping[str, Any]]:
        """Evaluate at the end; results by corpus and split. Skips what is done already."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended.

    Attributes:
        status: "done", or "stopped" by a signal (it can be resumed).
        step: steps trained in all; stopped at step 0, nothing is saved yet.
        summary: what run.json holds.
        results: final evaluations by corpus and split; empty if stopped.
    """

    status: str
    step: int
    summary: Mapping[str, Any]
    results: Mapping[str, Mapping[str, Any]]


def train(
    config: Config,
    path: Path,
    *,
    cache: Path,
    evaluator: Callable[[Plan, RunFolder], Evaluator],
    observer: Observer = lambda event: None,
) -> Outcome:
    """Train a run, or go on with it if it is there.

    Args:
        config: what to train.
        path: the run folder.
        cache: where prepared data is kept.
        evaluator: makes the evaluation of a plan.
        observer: is told what happens.

    Raises:
        UserError: for anything that the user can mend; a run folder made by this call is removed
            again if it holds no checkpoint yet.
    """
    run = RunFolder(place(path), writes=hosts.is_primary())
    if hosts.agreed(run.exists):
        run.check_config(config)
        with _held(run):
            return _train(make_plan(config, cache), run, cache, evaluator, observer)
    plan = make_plan(config, cache)

    def fill(folder: Path) -> None:
        plan.tokenizer.save(folder / "tokenizer")
        RunFolder(folder).write_target_counts(plan.store.counts)

    with hosts.together():
        run.create(config, fill)
    with _held(run):
        try:
            return _train(plan, run, cache, evaluator, observer)
        except NonFiniteError:
            raise
        except UserError:
            if run.writes and not checkpoint.steps_saved(run.checkpoints):
                run.remove()
            raise


def _train(
    plan: Plan,
    run: RunFolder,
    cache: Path,
    make_evaluator: Callable[[Plan, RunFolder], Evaluator],
    observer: Observer,
) -> Outcome:
    config = plan.config
    jax.config.update("jax_compilation_cache_dir", str(cache / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    tokenizer_hash = run.read_tokenizer().hash
    if tokenizer_hash != plan.tokenizer.hash:
        raise UserError(
            f"{run.path}: was made with another tokenizer (hash {tokenizer_hash}, the "
            f"configuration now gives {plan.tokenizer.hash}); choose another --run"
        )
    run.write_target_counts(plan.store.counts)  # in case they were lost
    evaluator = make_evaluator(plan, run)
    optimizer = make_optimizer(config.optimizer, plan.budget.steps)
    engine = make_engine(plan, optimizer)
    step = saved = hosts.agreed(max(checkpoint.steps_saved(run.checkpoints), default=0))
    state = engine.restore(run.checkpoints, step) if step else engine.begin()
    run.rewind_metrics(step)
    before = run.read_summary().get("seconds", 0.0) if step else 0.0
    began = time.monotonic()

    def summarise(status: str, **more: str) -> dict[str, Any]:
        seconds = before + time.monotonic() - began
        name = absolute(run.path).name
        summary = {**describe_run(plan, name, engine.memory, status, step, seconds), **more}
        run.write_summary(summary)
        return summary

    observer({"event": "start", "resumed_from": step, **summarise("running")})
    schedule = learning_rate_schedule(config.optimizer, plan.budget.steps)
    meter = _Meter(plan, observer)
    with _signals() as stop, _failure_told(run, summarise):
        # Hosts must stop at the same step: they agree on it in the steps, not in between.
        stops_now = (lambda: False) if hosts.are_many() else stop.is_set

        def log() -> None:
            sums = {name: float(value) for name, value in state.running.items()}
            weight = sums.pop("weight")
            figures = {
                "loss": sums["loss"] / weight,
                "mean_confidence": sums["confidence"] / weight,
                "accuracy": sums["correct"] / weight,
                "gradient_norm": float(metrics["gradient_norm"]),
                "learning_rate": float(schedule(step - 1)),
            }
            require_finite(figures, step)
            line = {f"train/{name}": value for name, value in figures.items()}
            run.append_metrics({"step": step, **line, **_seen(plan, step)})

        def require_sound() -> None:
            if not all_finite(state):
                raise NonFiniteError(
                    f"a parameter, or its optimizer state, is not finite at step {step}"
                )

        def evaluate() -> None:
            require_sound()
            results = evaluator.during(state.params, step, stops_now)
            line = {f"eval/{name}": value for name, value in results.items()}
            run.append_metrics({"step": step, **_seen(plan, step), **line})
            observer({"event": "evaluation", "step": step, **results})
            meter.restart()

        def save() -> None:
            nonlocal saved
            if step == saved:
                return
            require_sound()
            run.settle()
            checkpoint.save(run.checkpoints, step, state, plan.identity, config.checkpoints.keep)
            saved = step
            observer({"event": "saved", "step": step})
            meter.restart()

        try:
            # Killed or stopped in mid-evaluation after its checkpoint: the line is still owed.
            due = step > 0 and _evaluation_is_due(plan, step)
            if hosts.agreed(due and not _was_evaluated(run, step)):
                evaluate()
            stream = engine.batches(step) if step < plan.budget.steps else iter(())
            lagging = None
            stopping = stops_now()
            while step < plan.budget.steps and not stopping:
                state, metrics = engine.advance(state, next(stream), stop.is_set())
                step += 1
                stopping = stops_now()
                if lagging is not None:  # one step behind, so that the device never waits for us
                    figures = _floats(lagging)
                    stopping = stopping or figures.pop("stop", 0.0) > 0
                    require_finite(figures, step - 1)
                lagging = metrics
                meter.tick(step)
                if step % config.log_every == 0 or step == plan.budget.steps:
                    log()
                owed = _evaluation_is_due(plan, step)
                due = plan.is_due(step, config.checkpoints.times, config.checkpoints.every)
                if owed or due:
                    require_finite(_floats(metrics), step)
                if owed:
                    evaluate()
                if due:
                    save()
            if lagging is not None:
                require_finite(_floats(lagging), step)
            if stopping:
                raise Stopped
            save()
            results = evaluator.final(state.params, step, stops_now)
        except Stopped:
            if step:
                save()
            summary = summarise("stopped")
            return Outcome("stopped", step, summary, {})
    summary = summarise("done")
    observer({"event": "final", "results": results})
    return Outcome("done", step, summary, results)


@contextmanager
def _held(run: RunFolder) -> Iterator[None]:
    """The run's lock; where its host does not get it, all hosts raise."""
    with ExitStack() as stack:
        with hosts.together():
            stack.enter_context(run.locked())
        yield


@contextmanager
def _failure_told(run: RunFolder, summarise: Callable[..., Any]) -> Iterator[None]:
    """Write into run.json why a run failed; a disk that cannot take it is no second error."""
    try:
        yield
    except NonFiniteError as error:
        saved = checkpoint.steps_saved(run.checkpoints)
        kept = (
            f"the last good checkpoint is step {saved[-1]}"
            if saved
            else "no checkpoint was made yet"
        )
        told = f"{run.path}: {error}; {kept}. {ADVICE}"
        with suppress(UserError):
            summarise("failed", error=told)
        raise NonFiniteError(told) from None
    except Exception as error:
        with suppress(UserError):
            summarise("failed", error=str(error) or type(error).__name__)
        raise


def _floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def _seen(plan: Plan, step: int) -> dict[str, int]:
    tokens, raw = plan.progress_at(step)
    return {"train/tokens": tokens, "train/bytes": raw}


def _evaluation_is_due(plan: Plan, step: int) -> bool:
    return plan.is_due(step, plan.config.evaluation.times, plan.config.evaluation.every)


def _was_evaluated(run: RunFolder, step: int) -> bool:
    return any(line["step"] == step and "eval/nll" in line for line in run.read_metrics())


class _Meter:
    """Tells the observer about progress, at most twice a second."""

    def __init__(self, plan: Plan, observer: Observer):
        self.plan = plan
        self.observer = observer
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
        self.observer(
            {
                "event": "progress",
                "step": step,
                "steps": self.plan.budget.steps,
                "tokens_per_second": rate * self.plan.batches.slots_per_step,
                "seconds_left": (self.plan.budget.steps - step) / max(1e-9, rate),
            }
        )


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; a second SIGINT interrupts as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    old = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
