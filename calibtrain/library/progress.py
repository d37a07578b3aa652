"""What a caller is told while something runs, and the bar that shows it in a terminal or notebook.

Long work reports `Progress` to a callback. The functions of this room take one as `progress`:
`"auto"` is a bar in a terminal or a notebook, and a line per evaluation elsewhere; None shows
nothing.
"""

import html
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from calibtrain.process.phases import listening

log = logging.getLogger("calibtrain")
"""Notes that the user must see are warnings of this logger, whatever shows the progress."""

_FIGURES = ("bits_per_byte", "ece", "signed_gap")


@dataclass(frozen=True)
class Progress:
    """Where something that runs is.

    Attributes:
        event: what has happened: preparing, start, step, evaluation, saved, done, stopped or
            failed.
        step: how much is done: optimizer steps, or bytes, batches or heads; while text is prepared
            (once a second, where that takes longer), bytes of text, documents, or rounds of
            training a tokenizer.
        steps: of how many; 0 while that is not known.
        seconds_left: about how long the rest takes; None while that is not known.
        figures: the latest that were measured, by the names that `Run.metrics` has after `eval/`.
        run: the arm of a study; "" where there is one run.

    Example:
        >>> Progress("evaluation", 40, 200, 12.0, {"bits_per_byte": 2.5, "ece": 0.031})
        step 40 of 200, 12 s left, bits_per_byte 2.5000, ece 0.0310
    """

    event: str
    step: int = 0
    steps: int = 0
    seconds_left: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    run: str = ""

    def __repr__(self) -> str:
        left = "" if self.seconds_left is None else f", {self.seconds_left:.0f} s left"
        shown = (f", {key} {self.figures[key]:.4f}" for key in _FIGURES if key in self.figures)
        name = f"{self.run}: " if self.run else ""
        done = f" of {self.steps:,}" if self.steps else ""
        ended = f"{self.event}, " if self.event in ("done", "stopped", "failed") else ""
        return f"{name}{ended}step {self.step:,}{done}{left}{''.join(shown)}"


Callback = Callable[[Progress], None]
"""Is called with every `Progress`."""
Shown = Callback | Literal["auto"] | None
"""What the argument `progress` may be."""

_ENDS = {"finished": "done", "final": "done"}


class Narrator:
    """Turns the events of training into `Progress`, a state for each run."""

    def __init__(self, tell: Callback):
        self._tell, self._now = tell, dict[str, Progress]()

    def __call__(self, run: str, event: Mapping[str, Any]) -> None:
        """Tells of an event, if it moves anything; a note is a warning."""
        kind = event["event"]
        now = self._now.get(run, Progress("start", run=run))
        if kind == "note":
            log.warning("%s%s", f"{run}: " if run else "", event["text"])
            return
        if kind == "start":
            now = replace(now, event="start", step=event["resumed_from"], steps=event["steps"])
        elif kind == "progress":
            left = event["seconds_left"]
            now = replace(now, event="step", step=event["step"], seconds_left=left)
        elif kind == "evaluation":
            measured = {k: v for k, v in event.items() if isinstance(v, (int, float))}
            del measured["step"]
            now = replace(now, event=kind, step=event["step"], figures=measured)
        elif kind == "saved":
            now = replace(now, event=kind, step=event["step"])
        elif kind in _ENDS:
            now = replace(now, event=event.get("status", "done"), seconds_left=None)
        else:
            return
        self._now[run] = now
        self._tell(now)


def counted(tell: Callback) -> Callable[[int, int], None]:
    """Returns what a computation calls with how much is done, and of how much."""
    began = time.monotonic()
    top = 0

    def count(done: int, total: int) -> None:
        nonlocal began, top
        if done < top:  # another pass has begun
            began = time.monotonic()
        top = done
        rate = done / max(time.monotonic() - began, 1e-9)
        left = (total - done) / rate if done else None
        tell(Progress("done" if done >= total else "step", done, total, left))

    return count


def said(text: str) -> None:
    """Logs what a computation says: a note is a warning, all else information."""
    log.log(logging.WARNING if text.startswith("note: ") else logging.INFO, text)


@contextmanager
def shown(progress: Shown, what: str) -> Iterator[Callback]:
    """Gives the callback to tell, which is also told of phases, and shows a bar if asked.

    Args:
        progress: a callback, "auto" or None.
        what: is being done, in a word or two.
    """
    with ExitStack() as open_bar:
        tell: Callback
        if progress is None:
            tell = _tell_nobody
        elif progress != "auto":
            tell = progress
        elif in_notebook():
            tell = _NotebookBar(what)
        elif sys.stderr.isatty():
            tell = open_bar.enter_context(_TerminalBar(what))
        else:
            tell = _print_evaluation
        open_bar.enter_context(listening(lambda event: tell(_preparing(event))))
        yield tell


def _preparing(event: Mapping[str, Any]) -> Progress:
    """Returns a phase of what is prepared as `Progress`."""
    return Progress("preparing", event["done"], event["total"] or 0, event["seconds_left"])


def _tell_nobody(told: Progress) -> None:
    """Shows nothing."""


def in_notebook() -> bool:
    """Returns whether this is a kernel that shows HTML, as Jupyter's."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return shell is not None and "IPKernelApp" in shell.config


def _print_evaluation(told: Progress) -> None:
    """Prints evaluations, and why there are no more, for a log file."""
    if told.event in ("evaluation", "stopped", "failed"):
        print(told, file=sys.stderr, flush=True)


class _TerminalBar:
    """A bar per run on standard error."""

    def __init__(self, what: str):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        self._what, self._tasks, self._open = what, dict[str, Any](), ExitStack()
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}", markup=False),
            console=Console(stderr=True),
        )

    def __enter__(self) -> "_TerminalBar":
        self._open.enter_context(self._bars)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def __call__(self, told: Progress) -> None:
        """Moves the bar of a run."""
        if told.run not in self._tasks:
            name = told.run or self._what
            self._tasks[told.run] = self._bars.add_task(name, total=None, told="")
        self._bars.update(
            self._tasks[told.run],
            completed=told.step,
            total=told.steps or None,
            told=_in_words(told),
        )


class _NotebookBar:
    """A bar per run in the output of a notebook's cell."""

    def __init__(self, what: str):
        self._what, self._runs, self._drawn = what, dict[str, Progress](), 0.0
        self._handle: Any = None

    def __call__(self, told: Progress) -> None:
        """Draws the bars anew, at most twice a second while only steps go on."""
        from IPython.display import HTML, display

        self._runs[told.run] = told
        if told.event == "step" and time.monotonic() - self._drawn < 0.5:
            return
        self._drawn = time.monotonic()
        page = HTML("".join(map(self._row, self._runs.values())))
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)

    def _row(self, told: Progress) -> str:
        name = html.escape(told.run or self._what)
        bar = f'<progress value="{told.step}" max="{told.steps}"></progress>' if told.steps else ""
        return f"<div>{name} {bar} {html.escape(_in_words(told))}</div>"


def _in_words(told: Progress) -> str:
    left = "" if told.seconds_left is None else f"{told.seconds_left:.0f} s left"
    figures = (f"{key} {told.figures[key]:.4f}" for key in _FIGURES if key in told.figures)
    ended = told.event if told.event in ("done", "stopped", "failed") else left
    return ", ".join(filter(None, (ended, *figures)))
