"""Arrays by name in an Orbax folder, read back once written. The only module that knows Orbax.

Orbax and TensorStore take some characters of a path for a pattern or a part of a URL (`v[1]`), and
do not take names that are not UTF-8. Folders on a disk are therefore given to them by a link whose
name is plain, where their own is not.
"""

import dataclasses
import fcntl
import gc
import logging
import os
import re
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from calibtrain.errors import UserError, shown
from calibtrain.parallel import hosts
from calibtrain.storage.disk import disk_error_in
from calibtrain.storage.json_text import parse_json
from calibtrain.storage.places import absolute, in_bucket

Result = TypeVar("Result")

_PLAIN = re.compile(r"[A-Za-z0-9_./+=:,@~-]+")
_ABOUT = "_CHECKPOINT_METADATA"  # Orbax's file of what was said with the arrays
_ARRAYS = "state"  # Orbax's name for the one thing in a checkpoint
_NUMBER = 700
"""Number of an open folder: above those of a process that trains, below the limit of 1024."""
_SETTLE = 0.2  # seconds
_INDEX = 2**24  # bytes of an index that several arrays share
_OBJECT = 64 * 2**20
"""Bytes of an object or file that holds arrays, about: a bucket takes many at once. Orbax's own
size, 400 MiB, has one connection carry 40 % of a state of 1 GB."""


def import_orbax() -> None:
    """Imports Orbax now: it takes seconds, which a run has before its first step."""
    from orbax.checkpoint import v1  # noqa: F401


@dataclasses.dataclass(frozen=True)
class HeldArray:
    """What a host keeps of an array that it writes, to compare with what it reads back.

    Attributes:
        shape: of the whole array.
        dtype: of its numbers.
        parts: where each part that this process holds lies, and its numbers; empty where it is
            written to a bucket, from which they are not read back.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    parts: Sequence[tuple[Any, np.ndarray]]


def held_array(array: Any, *, compared: bool) -> HeldArray:
    """Returns what this host keeps of an array: its numbers only if they are to be compared."""
    parts: list[tuple[Any, np.ndarray]] = []
    if compared and isinstance(array, np.ndarray):
        parts = [(..., array)]
    elif compared:
        shards = [shard for shard in array.addressable_shards if shard.replica_id == 0]
        parts = [(shard.index, np.asarray(shard.data)) for shard in shards]
    return HeldArray(tuple(array.shape), np.dtype(array.dtype), parts)


def write_arrays(path: Path, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Writes arrays, which must not change meanwhile, and facts about them into a new folder.

    Raises:
        OSError: for a disk that cannot take them.
    """

    def write() -> None:
        with _plain(path) as place:
            _begin_to_write(place, arrays, about).result()

    _quietly(write)


def begin_to_write(
    path: Path, arrays: Mapping[str, Any], about: Mapping[str, Any]
) -> Callable[[], None]:
    """Copies arrays, which several processes hold, to their hosts; every process comes here.

    Returns:
        A function that returns once the arrays of every process are written. It may be called by a
        thread: processes wait for each other by messages, and not on their devices.

    Raises:
        OSError: for a disk that cannot take them; the returned function raises it too.
    """
    held = ExitStack()

    def begin() -> Any:
        return _begin_to_write(held.enter_context(_plain(path, together=True)), arrays, about)

    response = _quietly(begin)

    def written() -> None:
        with held:
            _quietly(response.result)

    return written


def _begin_to_write(place: Path, arrays: Mapping[str, Any], about: Mapping[str, Any]) -> Any:
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.array.saving.use_ocdbt = context.array.saving.use_zarr3 = True  # as `_opening` reads
    context.array.saving.use_compression = False
    context.array.saving.ocdbt_target_data_file_size = _OBJECT
    context.memory.deepcopy_host_arrays = False  # JAX keeps what NumPy looks at
    context.file.skip_sync_file_validations = True  # the loop would wait for them
    with context:
        return ocp.save_async(place, dict(arrays), custom_metadata=dict(about))


def read_arrays(path: Path, wanted: Mapping[str, Any], *, part: bool = False) -> dict[str, Any]:
    """Reads arrays by name.

    Args:
        path: the folder.
        wanted: shapes, dtypes and shardings by name.
        part: whether the folder may hold others, which are left unread.
    """
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.pytree.loading.partial_load = part

    def read() -> dict[str, Any]:
        with _plain(path, together=True) as place, context:
            return ocp.load(place, dict(wanted))

    return _quietly(read)


def read_about(path: Path) -> dict[str, Any]:
    """Reads the facts that were written beside the arrays; empty where there are none.

    Orbax's own reader opens the arrays too, and its threads print pages about one that is damaged.

    Raises:
        OSError: for a file that cannot be read.
        ValueError: for one that does not hold them.
    """
    found = parse_json((path / _ABOUT).read_text("utf-8"))
    about = found.get("custom_metadata") if isinstance(found, dict) else None
    if about is not None and not isinstance(about, dict):
        raise ValueError(f"custom_metadata is {shown(about)}, not an object")
    return about or {}


def require_readable(path: Path, arrays: Mapping[str, HeldArray]) -> None:
    """Opens every array that was written; on a disk, also reads and compares it bit by bit.

    In a bucket its shape and dtype alone are compared: reading all of it would take as long again
    as writing it did. Of an array that is spread over several processes, this one compares the
    parts that it holds; the others are read all the same.

    Raises:
        ValueError: in one line, for an array that cannot be read or differs.
    """
    with _plain(path) as place:
        opening = _opening(place, arrays)
        for name, array in arrays.items():
            try:
                found = opening[name].result()
                if not in_bucket(place):
                    found = np.asarray(found.read().result())
            except Exception as error:  # TensorStore raises ValueError, OSError and others
                reason = " ".join(str(error).split())[:300] or type(error).__name__
                raise ValueError(f"{name} cannot be read: {reason}") from error
            dtype = found.dtype if isinstance(found, np.ndarray) else found.dtype.numpy_dtype
            if tuple(found.shape) != array.shape or dtype != array.dtype:
                raise ValueError(
                    f"{name} is {dtype}{list(found.shape)}, and {array.dtype}"
                    f"{list(array.shape)} was to be written"
                )
            if in_bucket(place):
                continue
            if any(_bits(found[at]) != _bits(part) for at, part in array.parts):
                raise ValueError(f"{name} does not hold the numbers that were to be written")


def _opening(place: Path, names: Iterable[str]) -> dict[str, Any]:
    """Returns the arrays of a folder, as TensorStore is opening them: all at once.

    One after the other, each would wait for two answers of a bucket.
    """
    import tensorstore as ts

    base: dict[str, Any] = {"driver": "file", "path": f"{place}/{_ARRAYS}/"}
    if in_bucket(place):
        bucket, _, inside = str(place).removeprefix("gs://").partition("/")
        base = {"driver": "gcs", "bucket": bucket, "path": f"{inside}/{_ARRAYS}/"}
    context = ts.Context({"cache_pool": {"total_bytes_limit": _INDEX}})
    specs = {
        # a part that is not there is an error, not zeros
        name: {
            "driver": "zarr3",
            "kvstore": {"driver": "ocdbt", "base": base, "path": f"{name}/"},
            "fill_missing_data_reads": False,
        }
        for name in names
    }
    return {name: ts.open(spec, read=True, context=context) for name, spec in specs.items()}


def _bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


@contextmanager
def _plain(path: Path, *, together: bool = False) -> Iterator[Path]:
    """Yields the place under a path that nothing takes for a pattern or a URL.

    With `together`, every process of the run must come here, and all get the same path.
    """
    path = absolute(path)  # Orbax wants it absolute
    if in_bucket(path) or _PLAIN.fullmatch(str(path)):
        yield path
        return
    if together and hosts.are_many():
        with _numbered(path.parent) as folder:
            yield folder / path.name
        return
    with tempfile.TemporaryDirectory(prefix="calibtrain-", dir=_plain_temporary()) as folder:
        link = Path(folder) / "checkpoints"
        link.symlink_to(path.parent, target_is_directory=True)
        try:
            yield link / path.name
        finally:
            link.unlink(missing_ok=True)


@contextmanager
def _numbered(folder: Path) -> Iterator[Path]:
    """Yields a folder by the number that it is open under: the same path in all processes of a run.

    Orbax compares the paths of processes, which may be on machines with other temporary folders.
    """
    number = -1
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            number = fcntl.fcntl(opened, fcntl.F_DUPFD, _NUMBER)  # the lowest that is free
        finally:
            os.close(opened)
    try:
        place = Path(f"/proc/self/fd/{number}")
        wanted = hosts.agreed(number)  # another folder may be open meanwhile: that of another run
        with hosts.together():
            if number != wanted or not place.is_dir():
                raise UserError(
                    f"{folder}: several processes cannot write under such a name here; choose a "
                    "--run of letters, digits and - _ . alone"
                )
        yield place
    finally:
        if number >= 0:
            os.close(number)


def _plain_temporary() -> str:
    """Returns a folder for temporary files whose own name is plain."""
    folders = (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm")
    for folder in folders:
        if _PLAIN.fullmatch(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    return tempfile.gettempdir()


def _quietly(action: Callable[[], Result]) -> Result:
    """Does something with a folder, and keeps what Orbax and its threads print from the user.

    Raises:
        OSError: for a disk that does not take or give what it should; it holds none of the loops
            and futures that Orbax had at hand, which complain when they go.
    """
    with _silence:
        try:
            return action()
        except Exception as error:
            failed = _without_traceback(disk_error_in(error))
            if failed is None:
                raise
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
            time.sleep(_SETTLE)  # threads of TensorStore still call loops that are closed
        raise failed


class _Silence:
    """Keeps what Orbax and its threads print from the user, as long as any thread wants it."""

    def __init__(self) -> None:
        self._lock, self._wanted = threading.Lock(), 0
        self._before: Any = None

    def __enter__(self) -> None:
        with self._lock:
            self._wanted += 1
            if self._wanted > 1:
                return
            loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
            hook = sys.unraisablehook
            self._before = hook, [(logger, logger.level) for logger in loggers]
            for logger in loggers:
                logger.setLevel(logging.CRITICAL + 1)

            def only_signals(ignored: Any) -> None:
                if not isinstance(ignored.exc_value, Exception):
                    hook(ignored)

            sys.unraisablehook = only_signals

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._wanted -= 1
            if not self._wanted:
                sys.unraisablehook, levels = self._before
                for logger, level in levels:
                    logger.setLevel(level)


_silence = _Silence()


def _without_traceback(error: Exception) -> OSError | None:
    """Returns a new error that says the same of a disk; None for any other error."""
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, os.strerror(error.errno))
    return None
