"""A tracker is a process of its own, which is told by lines of JSON and never waited for.

So a tracker that fails, hangs, prints, takes memory or asks for a password does so by itself. What
its pipe does not take at once is kept and sent with the next line.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

COMMAND = [sys.executable, "-m", "calibtrain.trackers.child"]
MOST_KEPT = 8_000_000
"""Bytes that wait for a tracker; one that is further behind is off."""
CLOSING_SECONDS = 30.0
"""How long a run that is done waits for a tracker to write what it was told."""


class TrackerProcess:
    """The process of one tracker of a run."""

    def __init__(self, kind: str, note: Callable[[str], None]):
        """Args:
        kind: tensorboard or wandb.
        note: is told why the tracker is off, once.
        """
        self._kind, self._note = kind, note
        self._waiting, self._is_off = bytearray(), False
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            # a session of its own: Ctrl-C is for the run, which then closes the pipe
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                start_new_session=True,
            )
            os.set_blocking(self._pipe, False)
        except OSError as error:
            self.give_up(f"could not be started ({error})")

    @property
    def _pipe(self) -> int:
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def tell(self, message: Mapping[str, Any]) -> None:
        """Sends a message, as far as the tracker takes it now."""
        if self._process is None:
            return
        self._waiting += json.dumps(message).encode() + b"\n"
        self._send()
        if len(self._waiting) > MOST_KEPT:
            self.give_up("does not keep up")

    def close(self) -> None:
        """Sends what waits and ends the process, in `CLOSING_SECONDS` at most."""
        deadline = time.monotonic() + CLOSING_SECONDS
        while self._process is not None and self._waiting:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([], [self._pipe], [], left)[1]:
                return self.give_up(f"did not end within {CLOSING_SECONDS:g} s")
            self._send()
        if self._process is None:
            return None
        self._close_pipe()
        try:
            status = self._process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return self.give_up(f"did not end within {CLOSING_SECONDS:g} s")
        if status:
            return self.give_up(self._reason())
        self._process = None
        self._errors.close()
        return None

    def _send(self) -> None:
        try:
            while self._waiting:
                del self._waiting[: os.write(self._pipe, self._waiting[:65536])]
        except BlockingIOError:
            return
        except OSError:  # it has ended
            assert self._process is not None
            self._process.wait()
            self.give_up(self._reason())

    def _reason(self) -> str:
        """Returns the last line that the process printed before it ended."""
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f"failed: {said[-1][:300]}" if said else "ended"

    def give_up(self, why: str) -> None:
        """Ends the process, and says why in a note."""
        if self._is_off:
            return
        self._is_off = True
        if self._process is not None:
            self._process.kill()
            self._close_pipe()
            self._process.wait()
        self._process = None
        self._waiting.clear()
        self._errors.close()
        self._note(f"the tracker {self._kind} {why}; it is off, and the run goes on without it")

    def _close_pipe(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            return  # it has ended
