"""A lock for one writer of a folder on a disk, or several readers: `flock` on a file in it.

Readers share the lock, so that several read at once, and nothing is written while they do. Where
the file system has no `flock`, a writer holds a lease instead (`disk_lease`), and readers look
whether there is a fresh one.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from calibtrain.errors import TransientError
from calibtrain.storage import disk_lease
from calibtrain.storage.disk import disk_errors, is_read_only
from calibtrain.storage.disk_lease import Lease


@contextmanager
def held_to_write(path: Path) -> Iterator[Lease | None]:
    """Holds the lock whose file is at `path`, and writes this process's number into it.

    Yields:
        The lease that stands for the lock where the file system has no locks; otherwise None.

    Raises:
        TransientError: when another process holds it.
        UserError: when the file cannot be written.
    """
    with disk_errors(path.parent):
        handle = path.open("a+")
    with handle, ExitStack() as held:
        lease = None
        try:
            _take(path, handle, fcntl.LOCK_EX)
        except OSError as error:
            if not disk_lease.lacks_locks(error):
                raise
            with disk_errors(path.parent):
                lease = held.enter_context(disk_lease.held(path))
        handle.truncate(0)
        handle.write(f"{os.getpid()} on {socket.gethostname()}")
        handle.flush()
        yield lease


@contextmanager
def held_to_read(path: Path) -> Iterator[None]:
    """Shares the lock whose file is at `path` with other readers, also where it is read-only.

    Raises:
        TransientError: when another process holds it to write.
    """
    with ExitStack() as open_files:
        with suppress(OSError):  # the file is not there and cannot be made, or we may not read it
            handle = open_files.enter_context(_opened(path))
            try:
                _take(path, handle, fcntl.LOCK_SH)
            except OSError as error:
                if disk_lease.lacks_locks(error) and disk_lease.is_fresh(path):
                    raise _written(path, "see its lease") from None
        yield


def is_held_to_write(path: Path) -> bool:
    """Returns whether a process on this machine holds the lock whose file is at `path` to write."""
    try:
        with path.open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        return disk_lease.lacks_locks(error) and disk_lease.is_fresh(path)
    return False


def _opened(path: Path) -> IO[str]:
    try:
        return path.open("a+")
    except OSError as error:
        if not is_read_only(error):
            raise
        return path.open("r")


def _take(path: Path, handle: IO[str], kind: int) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
        return
    except BlockingIOError:
        pass
    if kind == fcntl.LOCK_EX and not is_held_to_write(path):
        raise TransientError(
            f"{path.parent}: is being read by another process (such as calibtrain evaluate); wait "
            "for it, stop it, or choose another --run"
        )
    handle.seek(0)
    raise _written(path, f"pid {handle.read().strip()}")


def _written(path: Path, who: str) -> TransientError:
    return TransientError(
        f"{path.parent}: is being written by another process ({who}); wait for it, stop it, or "
        "choose another --run"
    )
