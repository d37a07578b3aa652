"""Handling of SIGTERM and SIGINT: a command unwinds, or ends at once where it cannot.

Python handles a signal between two instructions of the main thread. A main thread inside a library
(a compilation, a wait for another host) may not get there for minutes, so a second thread watches
and ends the process when it has waited long enough.
"""

import contextlib
import dataclasses
import functools
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from calibtrain.process.output import end

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PATIENCE = 3.0
"""Seconds from a signal to the end of a process that has nothing to save."""


class Interrupted(BaseException):
    """SIGTERM or SIGINT came where no training loop or study was there to save and end."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


@dataclasses.dataclass
class _Watch:
    """The state that the two threads share.

    Attributes:
        asked: time and number of the first signal that nothing has answered yet.
        patience: returns how many seconds a signal may stay unanswered; None means no limit.
        answered: the latest signal after which a handler went on, or 0.
        raised: the signal for which Interrupted was raised, or 0.
        pipe: the pipe that Python writes the number of a signal to as soon as it comes.
        lock: held while the pipe is read.
        left: a message on what the unwinding command leaves behind.
        leaving: return messages on what the running command leaves behind, the innermost last.
    """

    asked: tuple[float, int] | None = None
    patience: Callable[[], float | None] = lambda: PATIENCE
    answered: int = 0
    raised: int = 0
    left: str = "; nothing was left"
    pipe: int = -1
    lock: threading.RLock = dataclasses.field(default_factory=threading.RLock)
    leaving: list[Callable[[], str]] = dataclasses.field(default_factory=list)


_watch = _Watch()


def unwinding() -> tuple[int, str] | None:
    """Returns the signal that unwinds this process and a message on what is left, or None.

    An exception raised while the process unwinds is due to the signal, also where a library wraps
    it.
    """
    return (_watch.raised, _watch.left) if _watch.raised else None


@contextmanager
def leaving(what: Path | Callable[[], str]) -> Iterator[None]:
    """Makes the message about an interruption say what is left: in a folder, or as told by `what`.

    A message begins as the rest of a sentence: "; two heads are kept".
    """
    left = what if callable(what) else functools.partial(_left, what)
    _watch.leaving.append(left)
    try:
        yield
    finally:
        _watch.leaving.pop()
        if _watch.raised and _watch.left == _Watch.left:  # the innermost knows best
            _watch.left = left()


def _left(folder: Path) -> str:
    if str(folder).startswith("gs://"):  # asking the server now would delay the end
        return "; the same command begins or goes on"
    if folder.exists():
        return f"; the same command goes on with {folder}"
    return " before training began; nothing was left"


def interrupt(number: int, frame: Any) -> None:
    """Handles a signal by raising Interrupted; unwinding removes half-written files."""
    if _watch.raised:
        return  # unwinding has begun, and the watcher makes sure that it ends
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            end_now(number)  # a half-imported extension module may crash
        frame = frame.f_back
    _watch.raised = number
    raise Interrupted(number)


def insist(ignored: Any) -> None:
    """Interrupts again where Python ignored it: in a destructor, or a callback of its collector."""
    if isinstance(ignored.exc_value, Interrupted):
        _watch.raised = 0
        signal_soon(ignored.exc_value.number)
    else:
        sys.__unraisablehook__(ignored)


def signal_soon(number: int) -> None:
    """Sends this process a signal again, soon."""
    again = threading.Timer(0.05, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def end_now(number: int, left: str | None = None) -> NoReturn:
    """Ends the process as a signal would; half-written files keep their temporary names.

    Args:
        number: the signal.
        left: a message on what the command leaves behind; None asks those that know.
    """
    if left is None:
        left = _watch.leaving[-1]() if _watch.leaving else _Watch.left
    end(f"calibtrain: stopped by {signal.Signals(number).name}{left}", 128 + number)


@contextmanager
def handled(
    handler: Callable[[int, Any], None],
    *,
    patience: Callable[[], float | None] = lambda: PATIENCE,
    answers: bool = True,
) -> Iterator[None]:
    """Handles both signals with `handler`; does nothing outside the main thread.

    Args:
        handler: called in the main thread.
        patience: returns how many seconds the main thread may take to reach the handler before the
            process is ended; None means no limit.
        answers: whether the process may go on after the handler ran, to save and end by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if answers:
            with _watch.lock:  # the signals too that the watcher has not read yet
                _read_signals()
                _watch.asked = None
            _watch.answered = number
        handler(number, frame)

    before = _watch.patience
    _watch.patience = patience
    old = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        _watch.patience = before
        for number, former in old.items():
            signal.signal(number, former)


@contextmanager
def collected() -> Iterator[list[int]]:
    """Collects the signals that ask to end with what there is; a second Ctrl-C ends at once."""
    came: list[int] = []

    def handle(number: int, frame: Any) -> None:
        if came and number == signal.SIGINT:
            end_now(number)
        came.append(number)

    with handled(handle, patience=lambda: None):
        yield came


@contextmanager
def passed_on() -> Iterator[None]:
    """Gives a signal that code inside answered by saving to whoever handled it before.

    So Ctrl-C still raises KeyboardInterrupt in the program that called, and SIGTERM still ends it.
    """
    _watch.answered = 0
    yield
    number, _watch.answered = _watch.answered, 0
    if number:
        signal.raise_signal(number)


def is_command() -> bool:
    """Returns whether this process is a command, which may end itself, and not a caller's."""
    return _watch.pipe >= 0


@contextmanager
def interruptible() -> Iterator[None]:
    """Makes both signals raise `Interrupted`; code inside may install its own handler."""
    hook, sys.unraisablehook = sys.unraisablehook, insist
    _watch.asked, _watch.raised, _watch.left = None, 0, _Watch.left
    try:
        with _watching(), handled(interrupt, answers=False):
            yield
    finally:
        sys.unraisablehook = hook


@contextmanager
def _watching() -> Iterator[None]:
    """Runs the thread that ends a process whose main thread does not answer signals."""
    _watch.pipe, writing = os.pipe()
    os.set_blocking(_watch.pipe, False)
    os.set_blocking(writing, False)
    thread = threading.Thread(target=_look, name="signals", daemon=True)
    thread.start()
    former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        with contextlib.suppress(OSError):
            os.write(writing, b"\0")
        thread.join()
        os.close(_watch.pipe)
        os.close(writing)
        _watch.pipe = -1


def _read_signals() -> bytes:
    """Returns the numbers of the signals that came since the last call."""
    try:
        return os.read(_watch.pipe, 64)
    except OSError:  # nothing to read
        return b""


def _look() -> None:
    """Reads signals until a 0 comes; ends the process when a signal stays unanswered."""
    while True:
        select.select([_watch.pipe], [], [], 0.1 if _watch.asked else None)
        with _watch.lock:
            came = _read_signals()
            if 0 in came:
                return
            for number in came:
                if number in SIGNALS and _watch.asked is None:
                    _watch.asked = (time.monotonic(), number)
            asked, patience = _watch.asked, _watch.patience()
        if asked and patience is not None and time.monotonic() - asked[0] > patience:
            end_now(asked[1])
