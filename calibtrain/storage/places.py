"""Places of files: a path on a disk, or `gs://BUCKET/PATH`, both used through `Path`'s methods.

A place on a disk is a `pathlib.Path`; one in a bucket is an `etils.epath.Path` over gcsfs, which
has the same methods for reading and listing. A bucket has no folders, appends or renames, but
writes an object whole or not at all. The code that differs for a bucket is here, in `disk`,
`growing` and `bucket_lock`, and in `runs` (`folder`, `checkpoint`).
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calibtrain.errors import TransientError, UserError, quoted

_BUCKET = "gs://"
_UNANSWERED = re.compile(
    "UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|ABORTED|retry attempts|CURL error"
)
"""How TensorStore says that a bucket did not answer."""
_LONGEST_REASON = 300
_TRY_AGAIN = (408, 429)
"""Statuses of HTTP below 500 that a later request may not get."""


def place(path: str | Path) -> Path:
    """Returns the place that a user names.

    A text that begins with ~ is below a home folder, as in a shell; `./~` is a folder called `~`.
    A `Path` is returned as it is.

    Raises:
        UserError: for an empty text, an unknown home folder, a bucket without a path in it or with
            wildcards, or a bucket without the package gcsfs.
    """
    text = str(path)
    if isinstance(path, str) and (not text.strip() or "\0" in text):
        raise UserError(f"{quoted(text)} names no file or folder; give a path")
    if text.startswith("gs:/") and not text.startswith(_BUCKET):
        text = _BUCKET + text.removeprefix("gs:/")  # pathlib makes one slash of two
    if not text.startswith(_BUCKET):
        return _below_home(path) if isinstance(path, str) else path
    bucket, _, inside = text.removeprefix(_BUCKET).strip("/").partition("/")
    if not bucket or not inside or any(character in "*?[]#" for character in text):
        raise UserError(
            f"{text}: names no place in a bucket; write gs://BUCKET/PATH, without * ? [ ] #"
        )
    bucket_files()
    from etils import epath

    found: Any = epath.Path(f"{_BUCKET}{bucket}/{inside}")
    return found


def _below_home(text: str) -> Path:
    path = Path(text)
    if not path.parts[:1] or not path.parts[0].startswith("~"):
        return path
    if not text.startswith("~"):  # ./~/x, which `Path` shortens to ~/x
        return Path(os.path.abspath(text))
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(
            f"{text}: there is no home folder for {path.parts[0]}; write the path out"
        ) from None


def in_bucket(path: Path) -> bool:
    """Returns whether a place is in a bucket."""
    return str(path).startswith(_BUCKET)


def absolute(path: Path) -> Path:
    """Returns a place as an absolute path."""
    return path if in_bucket(path) else Path(os.path.abspath(path))


def bucket_files() -> Any:
    """Returns the file system of gcsfs that `etils.epath` uses too.

    Raises:
        UserError: where gcsfs is not installed.
    """
    # No cached listings, so that files of other processes are seen at once. Flat and hierarchical
    # buckets are used alike, over plain HTTP, by one client, whether TensorFlow is there or not.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    os.environ.setdefault("EPATH_USE_TF", "false")
    import fsspec

    fsspec.config.conf.setdefault("gcs", {}).setdefault("use_listings_cache", False)
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        raise UserError(
            "gs://: needs the package gcsfs; install it with: pip install 'calibtrain[gcs]'"
        ) from None
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # errors are raised as well as logged
    from etils.epath import backend

    with reached("gs://"):
        return backend.fsspec_backend.fs(_BUCKET)


def put(path: Path, data: bytes, *, new: bool = False) -> None:
    """Writes an object of a bucket.

    Raises:
        FileExistsError: where `new` is true and it exists; of several writers, one succeeds.
    """
    bucket_files().pipe_file(str(path), data, mode="create" if new else "overwrite")


def listing(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns what a bucket tells of every object below a folder, by its name relative to it.

    One request for each thousand objects. Among what is told are `size` and `crc32c`.
    """
    root = str(folder).removeprefix(_BUCKET) + "/"
    found = bucket_files().find(root, detail=True)
    return {name.removeprefix(root): about for name, about in sorted(found.items())}


def files(folder: Path) -> list[str]:
    """Returns every file below a folder, relative to it, sorted."""
    if in_bucket(folder):
        root = str(folder).removeprefix(_BUCKET) + "/"
        return sorted(name.removeprefix(root) for name in bucket_files().find(root))
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def remove_tree(folder: Path) -> None:
    """Removes a folder and everything in it, if it exists."""
    if in_bucket(folder):
        tree: Any = folder
        tree.rmtree(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def reached(path: str | Path) -> Iterator[None]:
    """Turns an error of a bucket into one line; errors of a disk pass unchanged.

    Raises:
        TransientError: where the bucket did not answer, after the retries of its client.
        UserError: where it is not there, or may not be used.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        clients = ("gcsfs", "aiohttp", "google", "requests")
        ours = isinstance(error, OSError) or _module(error) in clients
        unanswered = isinstance(error, ValueError | RuntimeError) and _UNANSWERED.search(str(error))
        if not str(path).startswith(_BUCKET) or not (ours or unanswered):
            raise
        raise _failure(str(path), error) from error


def bucket_failure(error: BaseException) -> UserError | None:
    """Returns what to tell of an error of the bucket's client that nothing else named, or None."""
    if isinstance(error, Exception) and _module(error) in ("gcsfs", "aiohttp"):
        return _failure(_BUCKET, error)
    return None


def _failure(path: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
    if isinstance(error, FileNotFoundError):
        reason = f"not found: {reason}"
    elif not _is_refusal(error):
        return TransientError(
            f"{path}: the bucket does not answer ({reason}); start the same command again: a run "
            "goes on from its last checkpoint"
        )
    return UserError(
        f"{path}: the bucket cannot be used ({reason}); check its name, and that you may read "
        "and write it (gcloud auth application-default login)"
    )


def _module(error: Exception) -> str:
    return type(error).__module__.split(".")[0]


def _is_refusal(error: Exception) -> bool:
    """Returns whether a bucket answered that it does not give what was asked, now or later."""
    if isinstance(error, PermissionError) or str(error).startswith("Forbidden"):  # gcsfs, for 403
        return True
    if type(error).__name__ in ("DefaultCredentialsError", "RefreshError"):  # google.auth
        return not getattr(error, "retryable", False)
    code = getattr(error, "code", None) or getattr(error, "status", None)
    try:
        return 400 <= int(code or 0) < 500 and int(code or 0) not in _TRY_AGAIN
    except ValueError:
        return False
