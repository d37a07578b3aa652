"""What `trace` shows while a text is traced: a live terminal, plain text, or JSON lines."""

import codecs
import itertools
import json
import math
import time
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from calibtrain.process.output import OutputError, can_print, print_now, say

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.-:=+*#"
SURPRISES = ((-1.0, "blue"), (1.0, ""), (3.0, "yellow"), (5.0, "red"), (np.inf, "bold red"))
"""Colours of a token by its surprise less the entropy, in nats: up to each limit."""
_SHOWN_ALARMS = 3
_SECONDS = 0.2  # from one drawing to the next, at least
_SHARE = 0.05  # of the time is spent on drawing, at most, however slow the terminal is


class TraceView(Protocol):
    """Shows a trace as it grows.

    Attributes:
        closed: the error of a standard output that cannot be written to; None while it can.
    """

    closed: OutputError | None

    def __enter__(self) -> "TraceView": ...
    def __exit__(self, *error: object) -> None: ...

    def band(self, band: Any) -> None:
        """Is told the reference band before the first token; None where there is none."""

    def rows(self, trace: Any, first: int, alarms: Sequence[Any]) -> None:
        """Shows the tokens of a trace from `first` on, and the alarms that they gave."""


def make_trace_view(kind: str) -> TraceView:
    """Returns the view of a kind: terminal, plain, lines or none."""
    views: dict[str, type[TraceView]] = {
        "terminal": LiveTrace,
        "plain": PlainTrace,
        "lines": LinesTrace,
        "none": SilentTrace,
    }
    return views[kind]()


def alarm_line(alarm: Any) -> str:
    """Returns one line about an alarm."""
    if alarm.kind == "loop":
        return (
            f"alarm at byte {alarm.byte:,}: loop, a pattern of {alarm.value:.0f} tokens repeats "
            f"since byte {alarm.begins:,}"
        )
    rises = "surprise exceeds the entropy" if alarm.kind == "derailment" else "surprise is low"
    return (
        f"alarm at byte {alarm.byte:,}: {alarm.kind} ({alarm.test}), {rises} since about byte "
        f"{alarm.begins:,}"
    )


class SilentTrace:
    """Shows alarms on standard error and nothing else."""

    closed: OutputError | None = None

    def __enter__(self) -> TraceView:
        return self

    def __exit__(self, *error: object) -> None: ...

    def band(self, band: Any) -> None:
        """Shows nothing."""

    def rows(self, trace: Any, first: int, alarms: Sequence[Any]) -> None:
        """Shows alarms."""
        for alarm in alarms:
            say(alarm_line(alarm))

    def _print(self, text: str) -> None:
        self.closed = self.closed or print_now(text)


class PlainTrace(SilentTrace):
    """Prints the text without its prompt; alarms go to standard error."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def rows(self, trace: Any, first: int, alarms: Sequence[Any]) -> None:
        """Prints new characters that are whole, then alarms."""
        own = (trace.pieces[place] for place in range(first, len(trace)) if trace.source[place])
        self._print(self._decode(b"".join(own)))
        super().rows(trace, first, alarms)

    def __exit__(self, *error: object) -> None:
        if error == (None, None, None):
            self._print(self._decode(b"", True) + "\n")


class LinesTrace(SilentTrace):
    """Prints one JSON object per token, and one per alarm with the key `alarm`."""

    def rows(self, trace: Any, first: int, alarms: Sequence[Any]) -> None:
        """Prints rows, then alarms."""
        from calibtrain.runs.traces import row_line

        rows = [row_line(row) for row in trace.table(first).to_pylist()]
        rows += [json.dumps({"alarm": alarm._asdict()}) for alarm in alarms]
        self._print("".join(f"{row}\n" for row in rows))


class LiveTrace(SilentTrace):
    """Shows the text coloured by surprise, with the entropy rate, its band and alarms below."""

    def __init__(self, console: Console | None = None) -> None:
        """Args:
        console: where it is shown; None means standard output.
        """
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._line = Text()
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._band: Any = None
        self._trace: Any = None
        self._drawn, self._due = 0, 0.0
        self._rates: list[tuple[int, float]] = []
        self._alarms: list[Any] = []
        self._began, self._tokens, self._bytes, self._byte = 0.0, 0, 0, 0
        self._bars = _BARS if can_print(_BARS) else _PLAIN_BARS

    def __enter__(self) -> TraceView:
        return self

    def __exit__(self, *error: object) -> None:
        if self._live.is_started:
            self._draw()
            self._live.stop()

    def band(self, band: Any) -> None:
        """Begins the display."""
        self._band, self._began = band, time.monotonic()
        self._live.start()

    def rows(self, trace: Any, first: int, alarms: Sequence[Any]) -> None:
        """Adds tokens to the text and to the curve, when it is time to draw."""
        self._trace = trace
        self._alarms += alarms
        if time.monotonic() >= self._due:
            self._draw()

    def _draw(self) -> None:
        trace, first = self._trace, self._drawn
        if trace is None:
            return
        began = time.monotonic()
        self._drawn = len(trace)
        own = np.asarray(trace.source[first:]) != 0  # not of the prompt
        excess = -trace.log_probability[first:] - trace.entropy[first:]
        limits = [limit for limit, _ in SURPRISES]
        colours = np.where(own, np.searchsorted(limits, excess), len(limits)).tolist()
        names = [*(colour for _, colour in SURPRISES), "dim"]
        # one stretch of text for all tokens of a colour in a row, as each costs time to draw
        for colour, alike in itertools.groupby(
            zip(colours, trace.pieces[first:], strict=True), key=lambda token: token[0]
        ):
            text = self._decode(b"".join(piece for _, piece in alike))
            self._line.append(_visible(text), style=names[colour])
        sizes = trace.byte_lengths[first:]
        self._tokens += int(own.sum())
        self._bytes += int(sizes[own].sum())
        rates = trace.entropy_rate_windowed[first:]
        ends = self._byte + np.cumsum(sizes)
        self._byte += int(sizes.sum())
        self._rates += [
            (byte, rate)
            for byte, rate in zip(ends.tolist(), rates.tolist(), strict=True)
            if not math.isnan(rate)
        ]
        try:
            *full, self._line = self._line.wrap(self._console, self._console.width) or [Text()]
            self._live.update(self._shown(), refresh=not full)
            if full:  # in one go, as what is below them is drawn again each time
                self._live.console.print(Text("\n").join(full), soft_wrap=True)
        except OutputError as error:
            self.closed = error
        ended = time.monotonic()
        self._due = ended + max(_SECONDS, (ended - began) / _SHARE)

    def _shown(self) -> Group:
        lines = [self._line, Text("─" * self._console.width if can_print("─") else "", "dim")]
        if self._rates:
            lines += [self._curve(), self._numbers()]
        seconds = max(1e-3, time.monotonic() - self._began)
        speed = f"{self._bytes:,} bytes, {self._tokens:,} tokens; "
        speed += f"{self._bytes / seconds:,.0f} bytes/s, {self._tokens / seconds:,.0f} tokens/s"
        lines.append(Text(speed, "dim"))
        for alarm in self._alarms[-_SHOWN_ALARMS:]:
            lines.append(
                Text(alarm_line(alarm), "bold red" if alarm.kind == "derailment" else "bold blue")
            )
        return Group(*lines)

    def _curve(self) -> Text:
        """Returns the entropy rate along the text, a bar per column, coloured by the band."""
        width = min(self._console.width, len(self._rates))
        places = np.linspace(0, len(self._rates) - 1, width).round().astype(int)
        top = max(rate for _, rate in self._rates)
        if self._band is not None:
            top = max(top, *(each.quantiles[-1] for each in self._band.ranges))
        found = Text()
        bars = ((self._colour(*self._rates[place]), self._rates[place][1]) for place in places)
        for colour, alike in itertools.groupby(bars, key=lambda bar: bar[0]):
            levels = (round(rate / (top or 1.0) * (len(self._bars) - 1)) for _, rate in alike)
            found.append("".join(self._bars[level] for level in levels), style=colour)
        return found

    def _colour(self, byte: int, rate: float) -> str:
        if self._band is None:
            return ""
        low, *_, high = self._band.at(byte).quantiles
        return "red" if rate > high else "blue" if rate < low else "green"

    def _numbers(self) -> Text:
        byte, rate = self._rates[-1]
        found = Text("entropy rate ")
        found.append(f"{rate:.2f}", style=self._colour(byte, rate))
        found.append(" bits a byte")
        if self._band is not None:
            low, *_, high = self._band.at(byte).quantiles
            found.append(f"; 90 % of held-out text here {low:.2f} to {high:.2f}")
        return found


def _visible(text: str) -> str:
    """Returns a text whose control characters are shown and not obeyed; line ends stay."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else " " if letter == "\t" else "�"
        for letter in text
    )
