"""Writing so that nothing is ever half there: temporary names, renames, locks, clear disk errors.

Neither a killed process, nor two processes at once, nor a full disk leave something behind that is
later taken for whole. In a bucket, an object is written whole by itself.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from calibtrain.errors import UserError
from calibtrain.storage.places import in_bucket, place, put, reached


def cache_directory() -> Path:
    """Where prepared data is kept: `$CALIBTRAIN_CACHE`, or `~/.cache/calibtrain`.

    Raises:
        UserError: for a bucket, and without a home folder.
    """
    folder = place(os.environ.get("CALIBTRAIN_CACHE") or "~/.cache/calibtrain")
    if in_bucket(folder):
        raise UserError(f"CALIBTRAIN_CACHE: {folder}: must be a folder of a disk, not of a bucket")
    return folder


def make_folder(folder: Path) -> None:
    """Make a folder and those above it; a bucket needs none.

    Raises:
        UserError: where none can be made.
    """
    if in_bucket(folder):
        return
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # a file system that takes no folders, as /proc
            raise PermissionError(errno.EACCES, "takes no folders") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name and rename it; an object as it is."""
    data = content.encode("utf-8") if isinstance(content, str) else content
    if in_bucket(path):
        with disk_errors(path):
            put(path, data)
        return
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    with disk_errors(path):
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, waiting for it."""
    with path.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk into one line that says what to do."""
    if in_bucket(path):
        with reached(path):
            yield
        return
    try:
        yield
    except OSError as error:
        reasons = {
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EROFS: "the disk is read-only",
            errno.EACCES: "it may not be written",
            errno.EPERM: "it may not be written",
            errno.EFBIG: "the file would be larger than the system allows",
            errno.ENOTDIR: "a file is in the way",
            errno.EEXIST: "a file is in the way",
            errno.EISDIR: "a folder is in the way",
            errno.ENOTEMPTY: "a folder is in the way",
            errno.EINVAL: "such a name is not allowed there",
            errno.ENAMETOOLONG: "the name is too long",
        }
        if error.errno not in reasons:
            raise
        raise UserError(
            f"{path}: cannot write: {reasons[error.errno]}; free some space, or choose another "
            "place (--run for runs, the environment variable CALIBTRAIN_CACHE for prepared data)"
        ) from error
