"""Writing files whole or not at all: temporary names, renames, locks, clear disk errors.

A killed process, two processes at once, or a full disk leave nothing behind that is later taken for
a whole file. A bucket writes every object whole.
"""

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from calibtrain.errors import UserError
from calibtrain.storage import disk_lease
from calibtrain.storage.places import in_bucket, place, put, reached


def cache_directory() -> Path:
    """Returns the folder for prepared data: `$CALIBTRAIN_CACHE`, or `~/.cache/calibtrain`.

    Raises:
        UserError: where it is in a bucket, or there is no home folder.
    """
    folder = place(os.environ.get("CALIBTRAIN_CACHE") or "~/.cache/calibtrain")
    if in_bucket(folder):
        raise UserError(f"CALIBTRAIN_CACHE: {folder}: must be a folder of a disk, not of a bucket")
    return folder


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents; does nothing in a bucket, which needs none.

    Raises:
        UserError: where it cannot be made.
    """
    if in_bucket(folder):
        return
    with disk_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError as error:  # a file system without new folders, such as /proc
            raise PermissionError(errno.EACCES, "takes no folders") from error


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file under a temporary name and renames it; writes an object directly."""
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
    """Waits for an exclusive lock on a file and holds it."""
    with path.open("a") as handle, ExitStack() as held:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if not disk_lease.lacks_locks(error):
                raise
            held.enter_context(disk_lease.held(path, waits=True))
        yield


_ELSEWHERE = (
    "choose another place (--run for runs, the environment variable CALIBTRAIN_CACHE for prepared "
    "data)"
)
_FREE = f"free some space, or {_ELSEWHERE}"
_ALLOW = f"change who may write there, or {_ELSEWHERE}"
_REASONS = {
    errno.ENOSPC: ("the disk is full", _FREE),
    errno.EDQUOT: ("the disk quota is used up", _FREE),
    errno.EROFS: ("the disk is read-only", _ELSEWHERE),
    errno.EACCES: ("it may not be written", _ALLOW),
    errno.EPERM: ("it may not be written", _ALLOW),
    errno.EFBIG: (
        "the file would be larger than the system allows",
        f"raise that limit (ulimit -f), or {_ELSEWHERE}",
    ),
    errno.EMFILE: ("too many files are open", "raise that limit (ulimit -n), and start again"),
    errno.ENFILE: ("too many files are open on this machine", "close some, and start again"),
    errno.EIO: ("the disk fails", f"check it, or {_ELSEWHERE}"),
    errno.ENOTDIR: ("a file is in the way", _ELSEWHERE),
    errno.EEXIST: ("a file is in the way", _ELSEWHERE),
    errno.EISDIR: ("a folder is in the way", _ELSEWHERE),
    errno.ENOTEMPTY: ("a folder is in the way", _ELSEWHERE),
    errno.EINVAL: ("such a name is not allowed there", _ELSEWHERE),
    errno.ENAMETOOLONG: ("the name is too long", _ELSEWHERE),
}


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns the error of a full, read-only or forbidden disk into one line that says what to do."""
    if in_bucket(path):
        with reached(path):
            yield
        return
    try:
        yield
    except OSError as error:
        if error.errno not in _REASONS:
            raise
        reason, advice = _REASONS[error.errno]
        raise UserError(f"{path}: cannot write: {reason}; {advice}") from error


def disk_error_in(error: Exception) -> Exception:
    """Returns the OSError inside an error of Orbax, TensorStore or safetensors, or the error."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen
        seen = seen.__cause__ or seen.__context__
    text = str(error)
    if number := re.search(r"\(os error (\d+)\)|\[OS error (\d+)", text):
        code = int(number[1] or number[2])
        return OSError(code, os.strerror(code))
    # TensorStore quotes the system's message
    for code in _REASONS:
        if os.strerror(code) in text or errno.errorcode[code] in text:
            return OSError(code, os.strerror(code))
    return error


def is_read_only(error: BaseException | None) -> bool:
    """Returns whether an error, or its cause, says that a place may be read but not written."""
    while error is not None:
        if isinstance(error, OSError):
            return error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)
        error = error.__cause__
    return False
