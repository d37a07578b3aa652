"""Progress and events that a command shows on standard error while it works."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from calibtrain.cli.result_tables import human_bytes
from calibtrain.process.output import say, telling
from calibtrain.process.phases import listening


class View(Protocol):
    """Shows the progress of a run, or of the arms of a study."""

    def __call__(self, arm: str, event: Mapping[str, Any]) -> None:
        """Shows an event of an arm."""

    def __enter__(self) -> "View": ...
    def __exit__(self, *error: object) -> None: ...


def make_view(kind: str) -> View:
    """Returns a view: `rich` (live), `plain` (lines), `json` (one event per line) or `none`.

    `auto` chooses between `rich` and `plain`.
    """
    if kind == "auto":
        kind = "rich" if sys.stderr.isatty() else "plain"
    views: dict[str, type[View]] = {
        "rich": LiveView,
        "plain": PlainView,
        "json": JsonView,
        "none": SilentView,
    }
    return views[kind]()


class SilentView:
    """Shows notes and nothing else; those that show more are also told of phases."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def __call__(self, arm: str, event: Mapping[str, Any]) -> None:
        """Writes a note; ignores every other event."""
        if event["event"] == "note":
            say(f"{arm}: {event['text']}" if arm else event["text"])

    def __enter__(self) -> View:
        self._open.enter_context(telling(lambda text: self("", {"event": "note", "text": text})))
        self._open.enter_context(listening(lambda event: self("", event)))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


class JsonView(SilentView):
    """Writes one JSON object per line on standard error, for another program to read."""

    def __call__(self, arm: str, event: Mapping[str, Any]) -> None:
        """Writes the event."""
        if event["event"] not in ("metrics", "measured", "final"):  # those are in the files
            named = {**event, "arm": arm} if arm else {**event}
            say(json.dumps(named))


class PlainView(SilentView):
    """Writes lines for a log file: every evaluation, and progress every ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def __call__(self, arm: str, event: Mapping[str, Any]) -> None:
        """Writes a line for an event, if it is time."""
        if event["event"] in ("progress", "phase", "measuring"):
            if time.monotonic() - self._told.get(arm, 0.0) < 10:
                return
            self._told[arm] = time.monotonic()
        text = describe(event)
        if text:
            say(f"{arm}: {text}" if arm else text)


class LiveView(SilentView):
    """Shows a bar per arm: step, tokens per second, time left, current bits per byte and ECE."""

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            *([BarColumn(bar_width=20)] if self.console.width >= 110 else []),
            MofNCompleteColumn(),
            *([TextColumn("{task.fields[speed]}")] if self.console.width >= 90 else []),
            TextColumn("{task.fields[left]}"),
            TextColumn("{task.fields[quality]}"),
            console=self.console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> View:
        self._progress.start()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._progress.stop()

    def _task(self, arm: str) -> TaskID:
        if arm not in self._tasks:
            self._tasks[arm] = self._progress.add_task(
                escape(arm or "training"), total=None, speed="", left="", quality=""
            )
        return self._tasks[arm]

    def __call__(self, arm: str, event: Mapping[str, Any]) -> None:
        """Moves the arm's bar."""
        kind = event["event"]
        if "preparing" in self._tasks and kind in ("arms", "start", "progress", "evaluation"):
            self._progress.remove_task(self._tasks.pop("preparing"))
        if kind == "preparing":
            task = self._task("preparing")
            self._progress.update(task, description=f"preparing {escape(arm)}")
        elif kind == "arms":
            for name in event["names"]:
                self._task(name)
        elif kind == "phase":
            self._progress.update(self._task(arm or "preparing"), left=describe(event))
        elif kind in ("tokenised", "note"):
            self._progress.console.print(escape(f"{arm}: " if arm else "") + describe(event))
        elif kind == "start":
            self._progress.update(
                self._task(arm), total=event["steps"], completed=event["resumed_from"]
            )
            if not arm:
                self._progress.console.print(facts_table(event))
        elif kind == "progress":
            self._progress.update(
                self._task(arm),
                completed=event["step"],
                speed=f"{event['tokens_per_second']:,.0f} tok/s",
                left=f"{event['seconds_left']:.0f} s left",
            )
        elif kind == "measuring":
            self._progress.update(self._task(arm), speed="", left=describe(event))
        elif kind == "evaluation":
            quality = f"{event['bits_per_byte']:.3f} bits/byte, ECE {event['ece']:.4f}"
            self._progress.update(self._task(arm), quality=quality)
        elif kind == "finished":
            task = self._task(arm)
            if event["status"] == "done":
                self._progress.update(task, total=1, completed=1, left="done")
            else:
                self._progress.update(task, left=f"[red]{event['status']}")
                if event["error"]:
                    self._progress.console.print(f"[red]{escape(arm)}: {escape(event['error'])}")


class Counting(Protocol):
    """Shows how much of something is done, and how long the rest may take."""

    def __call__(self, done: int, total: int) -> None:
        """Shows that so much of all is done."""

    def stage(self, text: str) -> None:
        """Shows what is begun, such as "head 3 of 7: linear"; counting begins anew."""


@contextmanager
def show_counting(what: str) -> Iterator[Counting]:
    """Shows how much of something is done: a bar, or in a log file a line every ten seconds.

    Phases of what is prepared meanwhile are shown as well.
    """
    if not sys.stderr.isatty():
        lines = _CountingLines(what)
        with listening(lines.phase):
            yield lines
        return
    narrow = Console(stderr=True).width < 70
    columns = (
        TextColumn("{task.description}"),
        *(() if narrow else (BarColumn(bar_width=20),)),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        shown = _CountingBar(bar, what)
        with listening(shown.phase):
            yield shown


class _CountingBar:
    """A bar with the time left."""

    def __init__(self, bar: Progress, what: str):
        self._bar, self._text = bar, what
        self._task: TaskID | None = None
        self._phase: TaskID | None = None

    def phase(self, event: Mapping[str, Any]) -> None:
        """Shows a phase above the bar."""
        if self._phase is None:
            self._phase = self._bar.add_task("", total=None)
        self._bar.update(self._phase, description=escape(describe(event)))

    def _end_phase(self) -> None:
        if self._phase is not None:
            self._bar.remove_task(self._phase)
            self._phase = None

    def __call__(self, done: int, total: int) -> None:
        self._end_phase()
        if self._task is None:
            self._task = self._bar.add_task(escape(self._text), total=total)
        self._bar.update(self._task, completed=done, total=total)

    def stage(self, text: str) -> None:
        """Takes the bar's place by that of another stage."""
        self._end_phase()
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._text = text
        self._task = self._bar.add_task(escape(text), total=None)


class _CountingLines:
    """A line every ten seconds."""

    def __init__(self, what: str):
        self._text = what
        self._told = self._began = time.monotonic()
        self._first: int | None = None

    def phase(self, event: Mapping[str, Any]) -> None:
        """Shows a phase, if it is time."""
        if time.monotonic() - self._told >= 10:
            self._told = time.monotonic()
            say(describe(event))

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._first is None or done < self._first:
            self._first, self._began = done, now
        if now - self._told < 10:
            return
        self._told = now
        counted = done - self._first
        left = f", {(now - self._began) / counted * (total - done):.0f} s left" if counted else ""
        say(f"{self._text}: {done:,} of {total:,}{left}")

    def stage(self, text: str) -> None:
        """Begins to count anew."""
        self._text, self._first = text, None


def describe(event: Mapping[str, Any]) -> str:
    """Returns a line about an event; empty for an event that is not shown."""
    kind = event["event"]
    if kind == "start":
        parameters, memory = event["parameters"], event["memory"]
        row = event.get("row_tokens", event["context_tokens"])
        resumed = f", resumed from step {event['resumed_from']}" if event["resumed_from"] else ""
        return (
            f"{event['steps']} steps of {row}-token rows on {event['device']}"
            f"{resumed}; parameters: {parameters['embedding']:,} embedding + "
            f"{parameters['unembedding']:,} unembedding + {parameters['body']:,} body"
            f"{_trained(event, '; trained: ')}; memory: {human_bytes(memory['parameters'])} "
            f"parameters, {human_bytes(memory['optimizer'])} optimizer, "
            f"{human_bytes(memory['peak_temporary'])} peak activations"
        )
    if kind == "note":
        return str(event["text"])
    if kind == "phase":
        return _describe_phase(event)
    if kind == "tokenised":
        size, seconds = event["bytes"] / 1e6, event["seconds"]
        return (
            f"tokenised {size:.1f} MB in {seconds:.2f} s ({size / seconds:.1f} MB/s), "
            f"{event['split']} split"
        )
    if kind == "examples":
        cut = f"; {event['cut']:,} prompts are cut at their start" if event["cut"] else ""
        return f"{event['train']:,} examples to train on, {event['held_out']:,} held out{cut}"
    if kind == "progress":
        return (
            f"step {event['step']}/{event['steps']}, {event['tokens_per_second']:,.0f} tokens/s, "
            f"{event['seconds_left']:.0f} s left"
        )
    if kind == "measuring":
        return (
            f"{event['what']}: {event['done']:,} of {event['total']:,} read, "
            f"{event['seconds_left']:.0f} s left"
        )
    if kind == "evaluation":
        return (
            f"step {event['step']}: {event['bits_per_byte']:.4f} bits/byte, ECE {event['ece']:.4f},"
            f" signed gap {event['signed_gap']:+.4f}, entropy rate "
            f"{event['entropy_bits_per_byte']:.4f} bits/byte"
        ) + _examples_measured(event)
    if kind == "finished":
        return event["status"] + (f": {event['error']}" if event.get("error") else "")
    return ""


def _describe_phase(event: Mapping[str, Any]) -> str:
    """Returns what is prepared, how much of it is done, and how long the rest takes."""
    if event["total"] is None:
        return f"{event['what']}: {event['seconds']:.0f} s so far"
    done, total, unit = event["done"], event["total"], event["unit"]
    if unit == "bytes":
        much = f"{done / 1e6:,.1f} of {total / 1e6:,.1f} MB"
    else:
        much = f"{done:,} of {total:,} {unit}"
    left = event["seconds_left"]
    return f"{event['what']}: {much}" + ("" if left is None else f", {left:.0f} s left")


def _trained(event: Mapping[str, Any], before: str = "") -> str:
    """Returns what a fine-tuning trains of its model; "" for other runs."""
    if "trained" not in event:
        return ""
    text = f"{before}{event['trained']['parameters']:,}"
    maps = event["trained"].get("maps")
    return f"{text}, in adapters of {', '.join(maps)}" if maps else text


def _examples_measured(event: Mapping[str, Any]) -> str:
    """Returns what a fine-tuning measures beside its corpus; "" for other runs."""
    text = ""
    if "answers/ece" in event:
        text += f"; answers: nll {event['answers/nll']:.4f}, ECE {event['answers/ece']:.4f}"
    if "preference/accuracy" in event:
        text += f"; preferred rightly: {event['preference/accuracy']:.3f}"
    return text


def describe_stop(step: int) -> str:
    """Returns a line about a run that a signal stopped."""
    if not step:
        return "stopped before its first step, with nothing to save yet; the same command begins it"
    return f"stopped and saved at step {step}; the same command goes on from there"


def facts_table(event: Mapping[str, Any]) -> Table:
    """Returns the table shown before a run: parameters by role, memory, budget."""
    parameters, memory, budget = event["parameters"], event["memory"], event["budget"]
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    rows = [
        ("parameters", f"{parameters['total']:,}"),
        ("  embedding", f"{parameters['embedding']:,}"),
        (
            "  unembedding",
            f"{parameters['unembedding']:,}" + ("" if parameters["unembedding"] else " (tied)"),
        ),
        ("  body", f"{parameters['body']:,}"),
        *([("  trained", _trained(event))] if "trained" in event else []),
        ("memory, parameters", human_bytes(memory["parameters"])),
        ("memory, optimizer", human_bytes(memory["optimizer"])),
        ("memory, peak activations", f"{human_bytes(memory['peak_temporary'])} (as compiled)"),
        (
            "budget",
            f"{budget['steps']:,} steps, {budget['tokens']:,} tokens, {budget['bytes']:,} bytes",
        ),
        ("context", f"{event['context_tokens']} tokens"),
        ("device", str(event["device"])),
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table
