"""Places for files: a folder on a disk, or `gs://BUCKET/PATH`, both used through Path's methods.

A place on a disk is a `pathlib.Path`; one in a bucket is an `etils.epath.Path` over gcsfs, which
has the same methods for reading and listing. A bucket has no folders, appends or renames, but
writes an object whole or not at all; what differs for it is here, in `disk`, in `growing` and
in `training` (`run`, `bucket_lock`, `checkpoint`).
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError, quoted

_BUCKET = "gs://"


def place(path: str | Path) -> Path:
    """The place that a user names.

    A text that begins with ~ is below a home folder, as in a shell; `./~` is a folder of that name.
    A `Path` is a place already and is returned as it is.

    Raises:
        UserError: for an empty text, and for a home folder that is not known; for a bucket without
            a path in it, or with wildcards; or without the package that reaches it.
    """
    text = str(path)
    if isinstance(path, str) and (not text.strip() or "\0" in text):
        raise UserError(f"{quoted(text)} names no file or folder; give a path")
    if text.startswith("gs:/") and not text.startswith(_BUCKET):
        text = _BUCKET + text.removeprefix("gs:/")  # pathlib folds two slashes into one
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
    if not text.startswith("~"):  # ./~/x, which `Path` writes as ~/x
        return Path(os.path.abspath(text))
    try:
        return path.expanduser()
    except RuntimeError:
        raise UserError(
            f"{text}: there is no home folder for {path.parts[0]}; write the path out"
        ) from None


def in_bucket(path: Path) -> bool:
    """Whether a place is in a bucket."""
    return str(path).startswith(_BUCKET)


def absolute(path: Path) -> Path:
    """A place that means the same from every working directory."""
    return path if in_bucket(path) else Path(os.path.abspath(path))


def bucket_files() -> Any:
    """gcsfs, as `etils.epath` uses it too.

    Raises:
        UserError: where it is not installed.
    """
    # What others wrote must be seen at once; flat and hierarchical buckets alike, over plain HTTP;
    # the same client whether or not TensorFlow is installed.
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
    """Write an object of a bucket.

    Raises:
        FileExistsError: where it must be new and is not; of several writers one succeeds.
    """
    bucket_files().pipe_file(str(path), data, mode="create" if new else "overwrite")


def files(folder: Path) -> list[str]:
    """Every file below a folder, relative to it, sorted."""
    if in_bucket(folder):
        root = str(folder).removeprefix(_BUCKET) + "/"
        return sorted(name.removeprefix(root) for name in bucket_files().find(root))
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())


def remove_tree(folder: Path) -> None:
    """Remove a folder and what is in it, if it is there."""
    if in_bucket(folder):
        tree: Any = folder
        tree.rmtree(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def reached(path: str | Path) -> Iterator[None]:
    """Turn what a bucket answers, or no answer, into one line; nothing for a disk."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        clients = ("gcsfs", "aiohttp", "google", "requests")
        ours = isinstance(error, OSError) or type(error).__module__.split(".")[0] in clients
        if not str(path).startswith(_BUCKET) or not ours:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, FileNotFoundError):
            reason = f"not found: {reason}"
        raise UserError(
            f"{path}: the bucket cannot be used ({reason}); check its name, and that you may read "
            "and write it (gcloud auth application-default login)"
        ) from error
