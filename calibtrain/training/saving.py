"""Checkpoints that a thread writes while training goes on, and the clock that asks for them.

A save copies states to the hosts' memory, which ends with the step that made them; a thread of each
host then writes them. The next save waits for the one before, so at most one copy is held. A
checkpoint is whole once it is sealed, by the primary, after its run's metrics up to that step.
"""

import enum
import logging
import math
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

from calibtrain.errors import LostError, TransientError
from calibtrain.parallel import hosts

_log = logging.getLogger(__name__)

_PATIENCE = 60.0
"""Seconds that a start waits for what an interrupted one is still writing in this process."""

_abandoned: list[threading.Thread] = []
"""The threads of saves that were abandoned."""


class BegunSave(Protocol):
    """The save of one run, whose state is in this host's memory."""

    def write(self) -> None:
        """Writes what this host holds; returns once every host has."""

    def seal(self) -> None:
        """Makes the checkpoint whole."""

    def prune(self) -> None:
        """Removes older checkpoints."""

    def tell(self) -> None:
        """Tells the run's observer; called by the loop, not by the thread."""


class Progress(enum.IntEnum):
    """How far a save is; of several hosts, the largest counts."""

    DONE = 0
    UNDER_WAY = 1
    FAILED = 2


class Saves:
    """The saves of runs that are trained together, one after the other.

    Leaving the context waits for the save that is under way. It is abandoned, and never sealed,
    where another host is lost or the process is interrupted: another may hold the run by then. A
    program or notebook that was interrupted may start the run again, so the next `Saves` waits for
    the thread: the two would write under the same names.
    """

    def __init__(self, minutes: float | None):
        """Waits for what abandoned saves of this process are still writing.

        Args:
            minutes: between two saves, at most; None means that time asks for none.

        Raises:
            TransientError: where such a save is not written within a minute.
        """
        _wait_for_abandoned()
        self._seconds = math.inf if minutes is None else 60 * minutes
        self._since = time.monotonic()
        self._saves: Sequence[BegunSave] = ()
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._sealing = threading.Lock()
        self._abandoned = False

    def are_due(self) -> bool:
        """Returns whether time asks for a save; never while one is under way."""
        return self._thread is None and time.monotonic() - self._since >= self._seconds

    def progress(self) -> Progress:
        """Returns how far the last save is on this host."""
        if self._error is not None:
            return Progress.FAILED
        alive = self._thread is not None and self._thread.is_alive()
        return Progress.UNDER_WAY if alive else Progress.DONE

    def begin(self, saves: Sequence[BegunSave]) -> None:
        """Has a thread finish saves; none may be under way."""
        self._since, self._saves = time.monotonic(), saves
        self._thread = threading.Thread(target=self._finish, name="checkpoint", daemon=True)
        self._thread.start()

    def poll(self) -> None:
        """Tells the observers of a save that succeeded since the last call."""
        if self._thread is not None and not self._thread.is_alive() and self._error is None:
            self.wait()

    def wait(self) -> None:
        """Waits for the save under way, and tells the observers.

        Raises:
            UserError: where it failed, as `checkpoint.save` does.
        """
        if self._thread is None:
            return
        self._thread.join()
        self._thread = None
        saves, self._saves = self._saves, ()  # with them go the states that they hold
        self.require()
        for save in saves:
            save.tell()

    def require(self) -> None:
        """Raises the error of a save that failed; does not wait for one under way."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    def abandon(self) -> None:
        """Makes sure that the save under way is not sealed from now on.

        It waits for a checkpoint that is being sealed, and not for one that is being written.
        """
        with self._sealing:
            self._abandoned = True
        if self._thread is not None:
            _abandoned.append(self._thread)
        self._thread, self._saves = None, ()

    def _finish(self) -> None:
        saves = self._saves
        try:
            for save in saves:
                save.write()
            if not hosts.is_primary():
                return
            # all are sealed before any is pruned, so that all runs have a checkpoint of some step
            for part in [*(save.seal for save in saves), *(save.prune for save in saves)]:
                with self._sealing:
                    if self._abandoned:
                        return
                    part()
        except Exception as error:
            self._error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, LostError) or not isinstance(error, Exception | None):
            self.abandon()
        elif error is None:
            self.wait()
        else:
            try:
                self.wait()
            except Exception as second:
                _log.warning("the checkpoint under way failed too: %s", second)


def _wait_for_abandoned() -> None:
    end = time.monotonic() + _PATIENCE
    for thread in list(_abandoned):
        thread.join(max(0.0, end - time.monotonic()))
        if thread.is_alive():
            raise TransientError(
                "a checkpoint whose training was interrupted is still being written by this "
                "process; start again once it is written, or restart the process"
            )
        with suppress(ValueError):  # another thread waited too
            _abandoned.remove(thread)
