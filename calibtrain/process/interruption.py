"""SIGTERM and SIGINT: a command unwinds, or ends at once where it cannot.

Python handles a signal between two instructions of the main thread. One that is inside a library
(a compilation, a wait for another host) does not come to it for minutes, so a second thread watches
and ends the process when it has waited long enough.
"""

import contextlib
import dataclasses
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
    """What the two threads share.

    Attributes:
        asked: when the first signal came that nothing has answered yet, and which it was.
        patience: tells how many seconds it may stay so; None means as long as it takes.
        raised: the signal for which Interrupted was raised, or 0.
        pipe: where Python writes the number of a signal as soon as it comes.
        lock: is held while that is read.
        left: what the command that unwinds leaves behind.
        folders: what the running command makes.
    """

    asked: tuple[float, int] | None = None
    patience: Callable[[], float | None] = lambda: PATIENCE
    raised: int = 0
    left: str = "; nothing was left"
    pipe: int = -1
    lock: threading.RLock = dataclasses.field(default_factory=threading.RLock)
    folders: list[Path] = dataclasses.field(default_factory=list)


_watch = _Watch()


def unwinding() -> tuple[int, str] | None:
    """The signal that unwinds this process, and what is left; None where none does.

    Whatever fails on the way, and however a library wraps the exception, the signal is the reason.
    """
    return (_watch.raised, _watch.left) if _watch.raised else None


@contextmanager
def leaving(folder: Path) -> Iterator[None]:
    """Let an interruption tell what is in the folder that a command makes."""
    _watch.folders.append(folder)
    try:
        yield
    finally:
        _watch.folders.pop()
        if _watch.raised:
            _watch.left = _left(folder)


def _left(folder: Path) -> str:
    if str(folder).startswith("gs://"):  # it is not the time to ask a server
        return "; the same command begins or goes on"
    if folder.exists():
        return f"; the same command goes on with {folder}"
    return " before training began; nothing was left"


def interrupt(number: int, frame: Any) -> None:
    """Handle a signal by unwinding, which removes what is half-written."""
    if _watch.raised:
        return  # it unwinds already, and the watcher sees that it comes to an end
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            end_now(number)  # extension modules may crash when they are half imported
        frame = frame.f_back
    _watch.raised = number
    raise Interrupted(number)


def insist(ignored: Any) -> None:
    """Interrupt again where Python ignored it: in a destructor, or a callback of its collector."""
    if isinstance(ignored.exc_value, Interrupted):
        _watch.raised = 0
        signal_soon(ignored.exc_value.number)
    else:
        sys.__unraisablehook__(ignored)


def signal_soon(number: int) -> None:
    """Send this process a signal, again."""
    again = threading.Timer(0.05, os.kill, (os.getpid(), number))
    again.daemon = True
    again.start()


def end_now(number: int, left: str | None = None) -> NoReturn:
    """End the process as a signal would: what was half-written has temporary names.

    Args:
        number: the signal.
        left: what the command leaves behind; by default what its folders tell.
    """
    if left is None:
        left = _left(_watch.folders[-1]) if _watch.folders else _Watch.left
    end(f"calibtrain: stopped by {signal.Signals(number).name}{left}", 128 + number)


@contextmanager
def handled(
    handler: Callable[[int, Any], None],
    *,
    patience: Callable[[], float | None] = lambda: PATIENCE,
    answers: bool = True,
) -> Iterator[None]:
    """Handle the two signals; in a thread other than the main one, leave them.

    Args:
        handler: is called in the main thread.
        patience: how many seconds the main thread may take to come to the handler, at the moment;
            then the process ends. None means as long as it takes.
        answers: whether the process may go on once the handler ran, to save and end by itself.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if answers:
            with _watch.lock:  # also what the watcher has not read yet
                _read_signals()
                _watch.asked = None
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
def interruptible() -> Iterator[None]:
    """Let the two signals raise `Interrupted`; what handles them itself does so inside."""
    hook, sys.unraisablehook = sys.unraisablehook, insist
    _watch.asked, _watch.raised, _watch.left = None, 0, _Watch.left
    try:
        with _watching(), handled(interrupt, answers=False):
            yield
    finally:
        sys.unraisablehook = hook


@contextmanager
def _watching() -> Iterator[None]:
    """Run the thread that ends a process which does not come to its signals."""
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


def _read_signals() -> bytes:
    """The numbers of the signals that came since this was last called."""
    try:
        return os.read(_watch.pipe, 64)
    except OSError:  # nothing to read
        return b""


def _look() -> None:
    """Note signals as they come, until a 0; end the process when one stays unanswered."""
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
