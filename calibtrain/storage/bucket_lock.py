"""A lock for the one writer of a folder in a bucket: an object that its holder keeps fresh.

A bucket has no locks. The object is created under the precondition that there is none (generation
0), rewritten every `REFRESH` seconds, and removed at the end, each under the precondition that it
is still the holder's own. An object that was not written for `STALE` seconds, by the bucket's
clock, was left by a holder that died, and is taken over. A process that finds a fresh object
watches it until it is written again (its holder lives), removed, or stale. So a run that was
killed and is started again at once waits, and is not refused.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from calibtrain.errors import TransientError
from calibtrain.storage.json_text import parse_json
from calibtrain.storage.places import bucket_files, put, reached

REFRESH = 10.0
"""Seconds between two writes by the holder."""
STALE = 60.0
"""Seconds without a write after which the holder counts as dead."""
WATCH = 1.0
"""Seconds between two looks at another's lock."""


class BucketLock:
    """A lock that this process holds; made by `held`."""

    def __init__(self, path: Path):
        """Takes the lock whose object is at `path`, waiting where it may be stale.

        Raises:
            TransientError: where another process that is alive holds it.
        """
        self._path = path
        self._bucket, _, self._name = str(path).removeprefix("gs://").partition("/")
        self._id = uuid.uuid4().hex
        self._since = datetime.now().astimezone().isoformat(timespec="seconds")
        self._lost = False
        self._over = threading.Event()
        self._refreshed = 0.0  # when the last successful write began
        with reached(path.parent):
            self._generation = self._take()
        self._thread = threading.Thread(target=self._keep_fresh, name="lock", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Raises a TransientError where another process may have taken the lock over."""
        if self._lost or time.monotonic() - self._refreshed > STALE - REFRESH:
            raise TransientError(
                f"{self._path.parent}: this process could not keep its lock fresh, and another may "
                "write the run now; start the same command again"
            )

    def release(self) -> None:
        """Removes the object, if it is still ours."""
        self._over.set()
        self._thread.join()
        if not self._lost:
            with suppress(Exception), reached(self._path):  # if this fails, it becomes stale
                if self._look()[0] == self._generation:
                    self._remove(self._generation)

    def _take(self) -> str:
        seen: str | None = None
        while True:
            self._refreshed = time.monotonic()
            try:
                put(self._path, self._content(), new=True)
                return self._look()[0]
            except FileExistsError:
                pass
            try:
                generation, age = self._look()
                holder = self._holder()
            except FileNotFoundError:  # released in between
                continue
            if holder.get("id") == self._id:  # our own request made it and its answer was lost
                return generation
            if age > STALE:
                self._remove(generation)
                seen = None
            elif seen is None:
                seen = generation
            elif generation != seen:
                raise TransientError(
                    f"{self._path.parent}: is being written by another process (pid "
                    f"{holder.get('pid')} on {holder.get('host')}, since {holder.get('since')}); "
                    "wait for it, stop it, or choose another --run"
                )
            else:
                time.sleep(WATCH)

    def _keep_fresh(self) -> None:
        while not self._over.wait(REFRESH):
            try:
                self._refresh()
            except Exception:  # no answer; `require` raises if this lasts
                continue

    def _refresh(self) -> None:
        began = time.monotonic()
        try:
            generation, _ = self._look()
            if generation != self._generation and self._holder().get("id") == self._id:
                self._generation = generation  # ours: the answer to a write was lost
            if generation == self._generation:
                self._generation = self._rewrite()
                self._refreshed = began
            else:
                self._lost = True
        except FileExistsError:  # changed in the meantime: the next turn looks at it
            return
        except FileNotFoundError:
            self._lost = True
        if self._lost:
            self._over.set()

    def _content(self) -> bytes:
        who = {"host": socket.gethostname(), "pid": os.getpid(), "since": self._since}
        return json.dumps({**who, "id": self._id}).encode()

    def _holder(self) -> dict[str, Any]:
        try:
            found = parse_json(bucket_files().cat_file(str(self._path)))
        except ValueError:
            found = None
        return found if isinstance(found, dict) else {}

    def _look(self) -> tuple[str, float]:
        """Returns the object's generation and its age in seconds."""
        return look(self._bucket, self._name)

    def _rewrite(self) -> str:
        files = bucket_files()
        answer = files.call(
            "POST",
            files.base.replace("/storage/v1/", "/upload/storage/v1/") + "b/{}/o",
            self._bucket,
            uploadType="media",
            name=self._name,
            ifGenerationMatch=self._generation,
            data=self._content(),
            json_out=True,
        )
        return answer["generation"]

    def _remove(self, generation: str) -> None:
        with suppress(FileNotFoundError, FileExistsError):  # gone, or changed since
            bucket_files().call(
                "DELETE", "b/{}/o/{}", self._bucket, self._name, ifGenerationMatch=generation
            )


def is_fresh(path: Path) -> bool:
    """Returns whether a process that is alive seems to hold the lock whose object is at `path`."""
    bucket, _, name = str(path).removeprefix("gs://").partition("/")
    try:
        return look(bucket, name)[1] <= STALE
    except FileNotFoundError:
        return False


def look(bucket: str, name: str) -> tuple[str, float]:
    """Returns an object's generation and its age in seconds, by the bucket's clock."""
    headers, body = bucket_files().call("GET", "b/{}/o/{}", bucket, name)
    found = parse_json(body)
    written = datetime.fromisoformat(found["updated"])
    age = parsedate_to_datetime(headers["Date"]) - written
    return found["generation"], age.total_seconds()


@contextmanager
def held(path: Path) -> Iterator[BucketLock]:
    """Holds the lock whose object is at `path`."""
    lock = BucketLock(path)
    try:
        yield lock
    finally:
        lock.release()
