"""A lock for one writer of a folder on a disk, or several readers: `flock` on a file in it.

A reader takes the lock as well, so that nothing is written while it reads. A reader that may not
write the file takes a shared lock on it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from calibtrain.errors import UserError
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
    """Holds the lock whose file is at `path`, also where nothing may be written.

    Raises:
        UserError: when another process holds it.
    """
    if not _may_only_be_read(path):
        with held_to_write(path):
            yield
        return
    with ExitStack() as open_files:
        with suppress(OSError):  # there is no lock file, or we may not read it
            handle = open_files.enter_context(path.open("r"))
            _take(path, handle, fcntl.LOCK_SH)
        yield


def _may_only_be_read(path: Path) -> bool:
    try:
        with path.open("a"):
            return False
    except OSError as error:
        return is_read_only(error)


def _take(path: Path, handle: IO[str], kind: int) -> None:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        raise UserError(
            f"{path.parent}: is being written by another process (pid {handle.read().strip()}); "
            "wait for it, stop it, or choose another --run"
        ) from None
