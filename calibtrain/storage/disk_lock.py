"""A lock for one writer of a folder on a disk, or several readers: `flock` on a file in it.

Readers share the lock, so that several read at once, and nothing is written while they do.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from calibtrain.errors import TransientError
from calibtrain.storage.disk import disk_errors, is_read_only


@contextmanager
def held_to_write(path: Path) -> Iterator[None]:
    """Holds the lock whose file is at `path`, and writes this process's number into it.

    Raises:
        UserError: when another process holds it, or the file cannot be written.
    """
    with disk_errors(path.parent):
        handle = path.open("a+")
    with handle:
        _take(path, handle, fcntl.LOCK_EX)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


@contextmanager
def held_to_read(path: Path) -> Iterator[None]:
    """Shares the lock whose file is at `path` with other readers, also where it is read-only.

    Raises:
        UserError: when another process holds it to write.
    """
    with ExitStack() as open_files:
        with suppress(OSError):  # the file is not there and cannot be made, or we may not read it
            handle = open_files.enter_context(_opened(path))
            _take(path, handle, fcntl.LOCK_SH)
        yield


def is_held_to_write(path: Path) -> bool:
    """Returns whether a process on this machine holds the lock whose file is at `path` to write."""
    try:
        with path.open("r") as handle:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
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
    raise TransientError(
        f"{path.parent}: is being written by another process (pid {handle.read().strip()}); "
        "wait for it, stop it, or choose another --run"
    )
