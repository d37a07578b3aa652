"""A lock on file systems without `flock`, such as Lustre or NFS mounted without it: a lease.

As in a bucket (`bucket_lock`), the holder makes a file that must be new, and refreshes its time
every `REFRESH` seconds. A lease that was not refreshed for `STALE` seconds, by the file server's
clock, was left by a process that died, and is taken over. Whoever finds a fresh one watches it
until it is refreshed (its holder lives), removed, or stale.
"""

import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from calibtrain.errors import TransientError

REFRESH = 10.0
"""Seconds between two refreshes by the holder."""
STALE = 60.0
"""Seconds without a refresh after which the holder counts as dead."""
WATCH = 1.0
"""Seconds between two looks at another's lease."""
_UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)


def lacks_locks(error: OSError) -> bool:
    """Returns whether `flock` failed because the file system does not have it."""
    return error.errno in _UNSUPPORTED


class Lease:
    """A lease that this process holds; made by `held`."""

    def __init__(self, lock: Path, *, waits: bool):
        """Takes the lease in place of the lock file `lock`, waiting where it may be stale.

        Args:
            lock: the file that would be locked; the lease lies beside it.
            waits: whether to wait for a holder that is alive, too.

        Raises:
            TransientError: where another process that is alive holds it, and `waits` is false.
            OSError: where the file cannot be written.
        """
        self._path = lease_of(lock)
        self._id = uuid.uuid4().hex
        self._lost = False
        self._over = threading.Event()
        self._take(waits)
        self._refreshed = time.monotonic()
        self._thread = threading.Thread(target=self._keep_fresh, name="lease", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Raises a TransientError where another process may have taken the lease over."""
        if self._lost or time.monotonic() - self._refreshed > STALE - REFRESH:
            raise TransientError(
                f"{self._path.parent}: this process could not keep its lease ({self._path.name}) "
                "fresh, and another may write the run now; start the same command again"
            )

    def release(self) -> None:
        """Removes the lease, if it is still ours."""
        self._over.set()
        self._thread.join()
        with suppress(OSError):
            if not self._lost and _holder(self._path).get("id") == self._id:
                self._path.unlink()

    def _take(self, waits: bool) -> None:
        seen: tuple[str, float] | None = None
        while True:
            try:
                handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                pass
            else:
                with os.fdopen(handle, "w") as file:
                    who = {"host": socket.gethostname(), "pid": os.getpid()}
                    file.write(json.dumps({**who, "id": self._id}))
                return
            try:
                holder, written = _holder(self._path), _time_of(self._path)
                age = self._now() - written
            except FileNotFoundError:  # released in between
                continue
            now = (str(holder.get("id")), written)
            if age > STALE:
                self._take_away(now[0])
                seen = None
            elif not waits and seen is not None and seen != now:
                raise TransientError(
                    f"{self._path.parent}: is being written by another process (pid "
                    f"{holder.get('pid')} on {holder.get('host')}); wait for it, stop it, or "
                    "choose another --run"
                )
            else:
                seen = seen or now
                time.sleep(WATCH)

    def _take_away(self, dead: str) -> None:
        """Moves a dead lease away; of several processes, one does."""
        aside = self._path.with_name(f"{self._path.name}.{self._id}")
        with suppress(FileNotFoundError):
            self._path.rename(aside)
            if str(_holder(aside).get("id")) != dead:  # another was faster: it is that one's lease
                with suppress(OSError):
                    os.link(aside, self._path)
            aside.unlink(missing_ok=True)

    def _now(self) -> float:
        """Returns the time by the clock of the file server."""
        probe = self._path.with_name(f"{self._path.name}.{self._id}")
        try:
            probe.write_text("")
            return _time_of(probe)
        finally:
            probe.unlink(missing_ok=True)

    def _keep_fresh(self) -> None:
        while not self._over.wait(REFRESH):
            began = time.monotonic()
            try:
                if _holder(self._path).get("id") != self._id:
                    self._lost = True
                    return
                os.utime(self._path)
                self._refreshed = began
            except FileNotFoundError:
                self._lost = True
                return
            except OSError:  # no answer; `require` raises if this lasts
                continue


def lease_of(lock: Path) -> Path:
    """Returns the file of the lease that stands for a lock file."""
    return lock.with_name(f"{lock.name}.lease")


def is_fresh(lock: Path) -> bool:
    """Returns whether a process that is alive seems to hold the lease for a lock file."""
    try:
        return time.time() - _time_of(lease_of(lock)) <= STALE
    except OSError:
        return False


@contextmanager
def held(lock: Path, *, waits: bool = False) -> Iterator[Lease]:
    """Holds the lease that stands for a lock file."""
    lease = Lease(lock, waits=waits)
    try:
        yield lease
    finally:
        lease.release()


def _holder(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:  # its maker has not written it yet
        found = None
    return found if isinstance(found, dict) else {}


def _time_of(path: Path) -> float:
    """Returns when a file was written; opening it makes NFS ask its server."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime
