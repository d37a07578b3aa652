"""A text file that lines are appended to, on a disk or in a bucket (where objects cannot grow)."""

import threading
import time
from pathlib import Path

from calibtrain.storage.disk import disk_errors, write_whole
from calibtrain.storage.places import in_bucket

SECONDS = 10.0
"""Seconds between two writes of an object; Cloud Storage allows about one per second and name."""


class GrowingFile:
    """A file that grows: on a disk with `append`; in a bucket by a thread, or with `flush`.

    A process that is killed loses the lines that the thread has not written: those of the last
    `SECONDS`, and of the time that an upload takes.
    """

    def __init__(self, path: Path):
        self._path = path
        self._lines: list[str] | None = None  # all of an object, those not written yet included
        self._written = 0  # how many of them are in the bucket
        self._writing = threading.Lock()
        self._upload: threading.Thread | None = None
        self._began = -SECONDS
        self._error: Exception | None = None

    def append(self, line: str) -> None:
        """Appends a line.

        Raises:
            UserError: when the disk is full, or the place may not be written; in a bucket, where an
                earlier line could not be.
        """
        if not in_bucket(self._path):
            with disk_errors(self._path), self._path.open("a", encoding="utf-8") as handle:
                handle.write(line + "\n")
            return
        self._require()
        self._all().append(line + "\n")
        idle = self._upload is None or not self._upload.is_alive()
        if idle and time.monotonic() - self._began >= SECONDS:
            self._began = time.monotonic()
            self._upload = threading.Thread(target=self._try_to_flush, name="metrics", daemon=True)
            self._upload.start()

    def flush(self) -> None:
        """Writes the lines that are not written yet; a thread may call it.

        Raises:
            UserError: as `append` does.
        """
        if self._lines is None:
            return
        with self._writing:
            self._require()
            lines = list(self._lines)
            if len(lines) > self._written:
                write_whole(self._path, "".join(lines))
                self._written, self._began = len(lines), time.monotonic()

    def text(self) -> str:
        """Returns the whole text, lines that are not written yet included."""
        if in_bucket(self._path):
            return "".join(self._all())
        return self._path.read_text("utf-8") if self._path.exists() else ""

    def replace(self, text: str) -> None:
        """Replaces the whole text."""
        with self._writing:
            write_whole(self._path, text)
            self._lines = text.splitlines(keepends=True) if in_bucket(self._path) else None
            self._written = len(self._lines or ())

    def wait(self) -> None:
        """Waits for a thread that is writing; what it does not write is not tried again."""
        if self._upload is not None:
            self._upload.join()

    def _all(self) -> list[str]:
        if self._lines is None:
            with disk_errors(self._path):
                text = self._path.read_text("utf-8") if self._path.exists() else ""
            self._lines = text.splitlines(keepends=True)
            self._written = len(self._lines)
        return self._lines

    def _try_to_flush(self) -> None:
        try:
            self.flush()
        except Exception as error:
            self._error = error

    def _require(self) -> None:
        """Raises the error of the thread."""
        error, self._error = self._error, None
        if error is not None:
            raise error
