"""Programs that JAX compiled and keeps in the cache: damaged ones are removed before it reads them.

JAX adds files and never writes over one, so a damaged one would be met with a warning and compiled
again at every start. Those that were there at an earlier start are known by their checksums; a new
one by the checksum inside its compressed data.
"""

import logging
import time
import zlib
from contextlib import suppress
from pathlib import Path

from calibtrain.errors import UserError
from calibtrain.storage.disk import locked
from calibtrain.storage.prepared import SEAL, fingerprints, read_seal, write_seal

_SETTLED = 60.0  # seconds after which nobody is writing a file any more
_ZLIB = b"\x78"
_seen: dict[Path, tuple[int, int]] = {}  # size and time of those that were whole in this process

_log = logging.getLogger(__name__)


def open_compiled(folder: Path) -> Path:
    """Returns JAX's folder of compiled programs, without those that were damaged.

    A folder that may not be written is left as it is: JAX compiles again what it cannot read.
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
    """Whether a new program is whole, as far as its compression tells: only zlib has a checksum."""
    data = path.read_bytes()
    if not data.startswith(_ZLIB):
        return bool(data)
    inflating = zlib.decompressobj()
    with suppress(zlib.error):
        inflating.decompress(data)
        return inflating.eof
    return False
