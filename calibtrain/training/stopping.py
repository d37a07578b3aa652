"""How a signal stops the training loop: it saves and ends, within a bounded time."""

import enum
import math
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from calibtrain.parallel import hosts
from calibtrain.process.interruption import PATIENCE, end_now, handled, is_command

_ANYTHING = 600.0
"""Seconds that a call other than a step, such as a compilation in mid-run, may take."""

_LONG = 0.1
"""Seconds of a step from which on the next one is held back."""
_HELD = 0.9
"""The part of the shortest step so far until which it is."""


class Ask(enum.IntEnum):
    """What a host asks for with a step. All hosts do the largest of what any of them asks.

    They are told in the results of the step, which all read one step later: no host waits for
    another, and all act at the same step.
    """

    NOTHING = 0
    SAVE = 1
    """Time asks for a checkpoint; by the clock of the primary."""
    STOP = 2
    """A signal asks to save and end."""
    FAIL = 3
    """A checkpoint could not be written."""


class Stopped(Exception):
    """Raised by an evaluation that was asked to stop."""


class Stop(threading.Event):
    """Is set when the loop is to save and end.

    Until the first step is done there is nothing to save: a compilation is not waited for. Then
    what the main thread does is waited for; but a step only for some times as long as others took:
    it may wait for a host that does not answer, or for a thread that died of lack of memory.
    """

    def __init__(self) -> None:
        super().__init__()
        # an event must not be waited for in the thread whose signal handler sets it; a queue may
        self._asked: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.begin()

    def set(self) -> None:
        super().set()
        self._asked.put(None)

    def begin(self) -> None:
        """No step was taken yet."""
        self._stepping = False
        self._longest = 0.0
        self._shortest = math.inf
        self.pause()

    def pause(self) -> None:
        """What comes now is not a step."""
        self._since: float | None = None
        self._next = 0.0

    def step(self) -> None:
        """A step was dispatched, and the one before it is done: the device computes this one."""
        now = time.monotonic()
        if self._since is not None:
            self._longest = max(self._longest, now - self._since)
            self._shortest = min(self._shortest, now - self._since)
        self._stepping, self._since = True, now
        # of all steps: where the device had to wait for one, the next ones are held back less
        self._next = now + _HELD * self._shortest if _LONG <= self._shortest < math.inf else 0.0

    def wait_in_step(self) -> None:
        """Returns shortly before the device needs another step, or when a signal came.

        Otherwise a signal that comes in a long step would find a second one dispatched.
        """
        left = self._next - time.monotonic()
        if left > 0 and not self.is_set():
            with suppress(queue.Empty):
                self._asked.get(timeout=left)

    def patience(self) -> float:
        """Seconds in which the main thread must come to a signal, at the moment."""
        if not self._stepping:
            return PATIENCE
        if self._since is None:
            return _ANYTHING
        if hosts.met:
            return max(2 * PATIENCE, 3 * self._longest)
        return max(20 * PATIENCE, 10 * self._longest)


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """What SIGTERM and SIGINT ask of the loop.

    A second SIGINT ends a command at once, and interrupts the loop of a caller's process.
    """
    stop = Stop()

    def handle(number: int, frame: Any) -> None:
        if stop.is_set() and number == signal.SIGINT:
            if not is_command():
                raise KeyboardInterrupt
            end_now(number)
        stop.set()

    with handled(handle, patience=stop.patience):
        yield stop
