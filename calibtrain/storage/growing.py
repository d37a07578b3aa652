"""A text file that lines are added to, on a disk or in a bucket, whose objects cannot grow."""

import time
from pathlib import Path

from calibtrain.storage.disk import disk_errors, write_whole
from calibtrain.storage.places import in_bucket

SECONDS = 10.0
"""Between two writes of an object; Cloud Storage takes about one a second of the same name."""


class GrowingFile:
    """On a disk a line is there when `append` returns; in a bucket, at the latest after `flush`."""

    def __init__(self, path: Path):
        self._path = path
        self._text: str | None = None  # of an object, with what is not written yet
        self._pending = False
        self._written = -SECONDS

    def append(self, line: str) -> None:
        """Add a line.

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
        """Write what is not written yet."""
        if self._pending and self._text is not None:
            write_whole(self._path, self._text)
            self._pending, self._written = False, time.monotonic()

    def replace(self, text: str) -> None:
        """Write another text in place of this one."""
        write_whole(self._path, text)
        self._text, self._pending = None, False
