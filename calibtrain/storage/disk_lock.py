"""One writer of a folder on a disk, or several readers: `flock` on a file that lies in it.

What only reads takes the lock as well, so that nothing is written while it does; where it may not
write the file, it shares the lock of a writer that may.
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
    """Hold the lock whose file is at `path`; it names this process.

    Raises:
        UserError: when another process has it, or the file cannot be written.
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
    """Hold the lock whose file is at `path`, also where nothing may be written.

    Raises:
        UserError: when another process has it.
    """
    if not _may_only_be_read(path):
        with held_to_write(path):
            yield
        return
    with ExitStack() as open_files:
        with suppress(OSError):  # no lock is there, or it is not ours to read
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
