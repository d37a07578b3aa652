"""A text file that lines are appended to, on a disk or in a bucket (where objects cannot grow)."""

import time
from pathlib import Path

from calibtrain.storage.disk import disk_errors, write_whole
from calibtrain.storage.places import in_bucket

SECONDS = 10.0
"""Seconds between two writes of an object; Cloud Storage allows about one per second and name."""


class GrowingFile:
    """A file that grows: on a disk with `append`; in a bucket, at the latest with `flush`."""

    def __init__(self, path: Path):
        self._path = path
        self._text: str | None = None  # an object's whole text, unwritten lines included
        self._pending = False
        self._written = -SECONDS

    def append(self, line: str) -> None:
        """Appends a line.

        Raises:
            UserError: when the disk is full, or the place may not be written.
        """
        if not in_bucket(self._path):
            with disk_errors(self._path), self._path.open("a", encoding="utf-8") as handle:
                handle.write(line + "\n")
            return
        if self._text is None:
            with disk_errors(self._path):
                self._text = self._path.read_text("utf-8") if self._path.exists() else ""
        self._text += line + "\n"
        self._pending = True
        if time.monotonic() - self._written >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Writes the lines that are not written yet."""
        if self._pending and self._text is not None:
            write_whole(self._path, self._text)
            self._pending, self._written = False, time.monotonic()

    def replace(self, text: str) -> None:
        """Replaces the whole text."""
        write_whole(self._path, text)
        self._text, self._pending = None, False
