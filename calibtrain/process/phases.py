"""Phases of long preparations: how much is done and how long the rest takes, told to a listener.

Whoever shows progress listens; whoever reads, writes or trains counts. Neither knows the other, so
that a function deep in the preparation needs no argument for it.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

Listener = Callable[[Mapping[str, Any]], None]
"""Gets {"event": "phase", "what": ..., "done": ..., "total": ..., "unit": ..., "seconds": ...,
"seconds_left": ...}; total and seconds_left are None while they are not known."""
EVERY = 1.0
"""Seconds between two events of a phase; a phase that is shorter tells nothing."""

_Item = TypeVar("_Item")
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Passes the events of all phases to a listener, in place of one that listened before."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


class Phase:
    """One phase of a preparation, which counts what is done.

    Example:
        >>> told = []
        >>> with listening(told.append):
        ...     phase = Phase("reading text", total=200)
        ...     time.sleep(EVERY)
        ...     phase.at(50)
        >>> told[0]["done"], round(told[0]["seconds_left"])
        (50, 3)
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "bytes"):
        """Args:
        what: what is done, in a few words.
        total: how much there is to do; None while it is not known.
        unit: what is counted; bytes are shown as MB.
        """
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self.began = self._told = time.monotonic()
        self._listener = _listener.get()

    def at(self, done: int) -> None:
        """Says that so much is done in all; tells the listener if it is time."""
        self.done = done
        now = time.monotonic()
        if self._listener is None or now - self._told < EVERY:
            return
        self._told = now
        seconds, left = now - self.began, None
        if self.total is not None and done:
            left = seconds / done * max(0, self.total - done)
        self._listener(
            {
                "event": "phase",
                "what": self.what,
                "done": done,
                "total": self.total,
                "unit": self.unit,
                "seconds": seconds,
                "seconds_left": left,
            }
        )

    def add(self, more: int) -> None:
        """Says that so much more is done."""
        self.at(self.done + more)

    def of(self, items: Iterable[_Item], size: Callable[[_Item], int]) -> Iterator[_Item]:
        """Yields items, and counts the size of each once it is dealt with."""
        for item in items:
            yield item
            self.add(size(item))
