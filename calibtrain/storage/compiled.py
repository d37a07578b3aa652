"""JAX's cache of compiled programs: damaged files are removed before JAX reads them.

JAX adds files and never overwrites one, so it would warn about a damaged file and compile the
program again at every start. Files from an earlier start are checked against their checksums, and
new ones against the checksum inside their compressed data. A run in a bucket keeps a copy there of
the programs it compiled: a Pod begins with an empty cache, and only the first process adds to it.
"""

import logging
import os
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from calibtrain.errors import UserError
from calibtrain.storage.disk import locked, make_folder, write_whole
from calibtrain.storage.places import listing, reached
from calibtrain.storage.prepared import SEAL, fingerprints, read_seal, write_seal

_SETTLED = 60.0  # seconds after which a file is no longer being written
_ZLIB = b"\x78"
_seen: dict[Path, tuple[int, int]] = {}  # size and time of the files that this process found whole

_copies: dict[Path, set[str]] = {}  # by the cache's folder, names of what its copy has
_THREADS = 8

_log = logging.getLogger(__name__)


def use_compiled_programs(cache: Path, copy: Path | None = None) -> None:
    """Has JAX look for compiled programs in the cache, and keep them there.

    Args:
        cache: where prepared data is kept.
        copy: a folder in a bucket; what it has is fetched into the cache first.

    Raises:
        TransientError: where the bucket does not answer.
    """
    import jax

    if copy is not None:
        _fetch(cache / "compiled", copy)
        # these have the cache's path in their options, so that each cache had programs of its own
        jax.config.update("jax_persistent_cache_enable_xla_caches", "")
    jax.config.update("jax_compilation_cache_dir", str(open_compiled(cache / "compiled")))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def copy_new_programs(cache: Path, copy: Path) -> None:
    """Copies programs that were compiled since `use_compiled_programs` into a bucket.

    Raises:
        TransientError: where the bucket does not answer.
    """
    folder = cache / "compiled"
    there = _copies.setdefault(folder, set())
    for path in _programs(folder):
        if path.name not in there and _inflates(path):  # else JAX is still writing it
            write_whole(copy / path.name, path.read_bytes())
            there.add(path.name)


def _fetch(folder: Path, copy: Path) -> None:
    """Fetches the programs of a copy that the cache does not have."""
    with reached(copy):
        names = [name for name in listing(copy) if name.endswith("-cache") and "/" not in name]
    make_folder(folder)
    mine = {path.name for path in _programs(folder)}

    def fetch(name: str) -> None:
        with reached(copy):
            content = (copy / name).read_bytes()
        write_whole(folder / name, content)

    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(fetch, [name for name in names if name not in mine]))
    _copies[folder] = mine | set(names)


def open_compiled(folder: Path) -> Path:
    """Returns JAX's folder of compiled programs, after removing damaged ones.

    A folder that may not be written is left as it is: JAX compiles a program that it cannot read.
    """
    with suppress(OSError, UserError):
        if folder.is_dir() and any(_seen.get(path) != _stat(path) for path in _programs(folder)):
            with locked(folder / ".seal.lock"):
                _remove_damaged(folder)
    return folder


def _remove_damaged(folder: Path) -> None:
    try:
        known = read_seal(folder)
    except (OSError, ValueError):  # the first start, or the seal itself was damaged
        known = {}
    there = {path.name: path for path in _programs(folder)}
    found = fingerprints(folder, there)
    whole, damaged = {}, []
    for name, path in there.items():
        if found[name] == known.get(name) or (name not in known and _inflates(path)):
            whole[name] = found[name]
            _seen[path] = _stat(path)
        elif name in known or time.time() - path.stat().st_mtime > _SETTLED:
            damaged.append(name)
            path.unlink()
    if damaged:
        _log.warning(
            "%s: %d compiled program(s) were damaged (%s); they are compiled again",
            folder,
            len(damaged),
            ", ".join(name.partition("-")[0] for name in damaged[:3]),
        )
    if whole != known or not (folder / SEAL).exists():
        write_seal(folder, whole)


def _programs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-cache"))


def _stat(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _inflates(path: Path) -> bool:
    """Returns whether a new file is whole, if zlib compressed it (other files have no checksum)."""
    data = path.read_bytes()
    if not data.startswith(_ZLIB):
        return bool(data)
    inflating = zlib.decompressobj()
    with suppress(zlib.error):
        inflating.decompress(data)
        return inflating.eof
    return False
