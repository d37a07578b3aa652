"""What a command shows: tables on standard output, live progress on standard error."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
)
from rich.table import Table

from calibtrain.metrics.quantities import QUANTITIES
from calibtrain.output import say, telling

RESULT_COLUMNS = (
    "bits_per_byte",
    "ece",
    "signed_gap",
    "accuracy",
    "mean_confidence",
    "entropy_rate",
    "entropy_bits_per_byte",
    "bytes",
)
STUDY_COLUMNS = ("bits_per_byte", "ece", "signed_gap", "entropy_bits_per_byte")
DOMAIN_COLUMNS = RESULT_COLUMNS[:5]


def human_bytes(count: float) -> str:
    """1536 -> "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


class View(Protocol):
    """Shows what the arms of a study, or a single run, are doing."""

    def __call__(self, arm: str, event: Mapping[str, Any]) -> None:
        """An event of an arm."""

    def __enter__(self) -> "View": ...
    def __exit__(self, *error: object) -> None: ...


def make_view(kind: str) -> View:
    """A view: `rich` (live), `plain` (lines), `json` (one event a line), `none`; `auto` chooses."""
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
    """Shows notes, which are no progress, and nothing else."""

    def __init__(self) -> None:
        self._open = ExitStack()

    def __call__(self, arm: str, event: Mapping[str, Any]) -> None:
        """Write a note; ignore every other event."""
        if event["event"] == "note":
            say(f"{arm}: {event['text']}" if arm else event["text"])

    def __enter__(self) -> View:
        self._open.enter_context(telling(lambda text: self("", {"event": "note", "text": text})))
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()


class JsonView(SilentView):
    """One JSON object a line on standard error, for another program to read."""

    def __call__(self, arm: str, event: Mapping[str, Any]) -> None:
        """Write the event."""
        if event["event"] != "final":  # the results are in the files
            named = {**event, "arm": arm} if arm else {**event}
            say(json.dumps(named))


class PlainView(SilentView):
    """Lines for a log file: every evaluation, and progress every ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, float] = {}

    def __call__(self, arm: str, event: Mapping[str, Any]) -> None:
        """Write a line, if it is time."""
        if event["event"] == "progress":
            if time.monotonic() - self._told.get(arm, 0.0) < 10:
                return
            self._told[arm] = time.monotonic()
        text = describe(event)
        if text:
            say(f"{arm}: {text}" if arm else text)


class LiveView(SilentView):
    """A bar an arm: step, tokens a second, time left, current bits per byte and ECE."""

    def __init__(self) -> None:
        super().__init__()
        self.console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
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
        """Move the arm's bar."""
        kind = event["event"]
        if kind == "preparing":
            task = self._task("preparing")
            self._progress.update(task, description=f"preparing {escape(arm)}")
        elif kind == "arms":
            if "preparing" in self._tasks:
                self._progress.remove_task(self._tasks.pop("preparing"))
            for name in event["names"]:
                self._task(name)
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


@contextmanager
def show_counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how much of something is done: a bar, or for a log file a line every ten seconds."""
    if sys.stderr.isatty():
        with Progress(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told >= 10:
            told = time.monotonic()
            say(f"{what}: {done:,} of {total:,}")

    yield tell


def describe(event: Mapping[str, Any]) -> str:
    """An event in a line; empty for those not worth one."""
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
    if kind == "evaluation":
        return (
            f"step {event['step']}: {event['bits_per_byte']:.4f} bits/byte, ECE {event['ece']:.4f},"
            f" signed gap {event['signed_gap']:+.4f}, entropy rate "
            f"{event['entropy_bits_per_byte']:.4f} bits/byte"
        ) + _examples_measured(event)
    if kind == "finished":
        return event["status"] + (f": {event['error']}" if event.get("error") else "")
    return ""


def _trained(event: Mapping[str, Any], before: str = "") -> str:
    """What a fine-tuning trains of its model; nothing for other runs."""
    if "trained" not in event:
        return ""
    text = f"{before}{event['trained']['parameters']:,}"
    maps = event["trained"].get("maps")
    return f"{text}, in adapters of {', '.join(maps)}" if maps else text


def _examples_measured(event: Mapping[str, Any]) -> str:
    """What a fine-tuning measures beside its corpus; nothing for other runs."""
    text = ""
    if "answers/ece" in event:
        text += f"; answers: nll {event['answers/nll']:.4f}, ECE {event['answers/ece']:.4f}"
    if "preference/accuracy" in event:
        text += f"; preferred rightly: {event['preference/accuracy']:.3f}"
    return text


def describe_stop(step: int) -> str:
    """What there is to say of a run that a signal stopped."""
    if not step:
        return "stopped before its first step, with nothing to save yet; the same command begins it"
    return f"stopped and saved at step {step}; the same command goes on from there"


def facts_table(event: Mapping[str, Any]) -> Table:
    """What a run is about to do: parameters by role, memory, budget."""
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


def add_columns(table: Table, keys: Sequence[str], event: str = "token") -> None:
    """A column for each figure, headed by its name and unit."""
    for key in keys:
        heading = QUANTITIES[key].heading(event)
        table.add_column(heading, justify="right", overflow="fold")


def results_table(
    rows: Sequence[tuple[str, Mapping[str, Any]]], first: str, event: str = "token"
) -> Table:
    """Results of one event space, a row each."""
    table = Table(show_edge=False)
    table.add_column(first)
    add_columns(table, RESULT_COLUMNS, event)
    for name, figures in rows:
        cells = [QUANTITIES[key].plain(figures.get(key)) for key in RESULT_COLUMNS]
        table.add_row(escape(name), *cells)
    return table


def domains_table(found: Mapping[str, Any]) -> Table:
    """A run on several corpora, raw and with its temperature; 95 % intervals behind the figures."""
    fitted = found["temperature"]
    title = (
        f"T = {fitted['value']:.4f}, fitted on {fitted['fitted_on']}: nll "
        f"{fitted['nll_before']:.4f} -> {fitted['nll_after']:.4f} "
        f"{QUANTITIES['nll'].unit_in_words()}"
    )
    table = Table(show_edge=False, title=title, title_justify="left")
    table.add_column("corpus")
    table.add_column("T", justify="right")
    add_columns(table, DOMAIN_COLUMNS)
    for row in found["evaluations"]:
        cells = []
        for key in DOMAIN_COLUMNS:
            plain, interval = QUANTITIES[key].plain, row["intervals"].get(key)
            ends = f" [{plain(interval['lower'])}, {plain(interval['upper'])}]" if interval else ""
            cells.append(plain(row[key]) + ends)
        name = f"{row['corpus']}-{row['split']}"
        table.add_row(escape(name), f"{row['temperature']:.4f}", *cells)
    return table


def study_table(result: Mapping[str, Any]) -> Table:
    """Means over seeds, with half widths of their 95 % intervals, for the main evaluation."""
    names = [row["evaluation"] for row in result["summary"]]
    main = next((name for name in names if name.endswith("-test")), names[0] if names else "")
    table = Table(show_edge=False, title=f"{result['title']} ({main})", title_justify="left")
    table.add_column("arm")
    table.add_column("seeds", justify="right")
    add_columns(table, STUDY_COLUMNS)
    for row in result["summary"]:
        if row["evaluation"] != main:
            continue
        settings = ", ".join(
            f"{key.rpartition('.')[2]}={value}" for key, value in row["settings"].items()
        )
        cells = []
        for key in STUDY_COLUMNS:
            quantity, half = QUANTITIES[key], row["half_width"].get(key)
            width = f" ±{quantity.plain_half(half)}" if half else ""
            cells.append(quantity.plain(row["mean"].get(key)) + width)
        table.add_row(escape(settings) or "base", str(row["seeds"]), *cells)
    return table


def print_table(table: Table) -> None:
    """A result, on standard output; never folded when it is not a terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=Console(width=10_000).measure(table).maximum)
    console.print(table)


def compilation_table(found: Mapping[str, Any]) -> Table:
    """What `compile` found: a column a program, figures of one device."""
    mesh = " x ".join(f"{name} {count}" for name, count in found["mesh"].items())
    way = f"{found['compute']}, {found['layers']} layers, remat {found['remat']}"
    table = Table(
        title=f"{found['devices']} devices ({found['slices']} x {found['topology']}): {mesh}",
        caption=f"attention {found['attention'] or 'none'}, {way}",
    )
    table.add_column("a device")
    columns = []
    for name in ("training", "evaluation"):
        table.add_column(name, justify="right")
        columns.append(_compiled_program(found[name]))
    for label in dict.fromkeys(label for column in columns for label in column):
        table.add_row(label, *(column.get(label, "0") for column in columns))
    if found["not_counted"]:
        table.add_row("not counted", found["not_counted"], "")
    return table


def _compiled_program(program: Mapping[str, Any]) -> dict[str, str]:
    """Labels and figures of one column."""
    memory, flops = program["memory"], program["flops"]
    return {
        "rows, all devices": f"{program['rows']:,}",
        "arguments": human_bytes(memory["arguments"]),
        "temporaries": human_bytes(memory["temporaries"]),
        "outputs, not donated": human_bytes(memory["outputs"] - memory["aliased"]),
        "optimizer, held": human_bytes(memory["held"]),
        "memory needed": human_bytes(memory["needed"]),
        "memory usable": human_bytes(memory["usable"]),
        "fits": "yes" if program["fits"] else "no",
        "FLOPs, compiled": "unknown" if flops["compiler"] is None else f"{flops['compiler']:.3g}",
        "FLOPs, analytic": f"{flops['analytic']:.3g}",
        **{kind: human_bytes(size) for kind, size in program["collectives"].items()},
    }
