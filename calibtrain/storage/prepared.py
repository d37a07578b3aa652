"""Prepared data: folders that are made once, sealed with checksums, and made again if damaged.

A folder is filled under a temporary name, `seal.json` (size and SHA-256 of every file) is written
last, and the folder is renamed. Opening compares the files with the seal, once per process unless
they change. A folder that does not agree with its seal is moved aside (a process that has mapped
its files keeps them), removed, and made again, with a warning.
"""

import glob
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.storage.disk import disk_errors, locked, make_folder, write_whole
from calibtrain.storage.json_text import read_json
from calibtrain.storage.places import files

SEAL = "seal.json"
FORMAT = 1
PIECE = 2**26
"""Bytes per SHA-256, so that all cores share the work on a large file."""
_THREADS = 8
_READ = 2**20

_log = logging.getLogger(__name__)
_whole: dict[
    str, Any
] = {}  # by folder, what `stat` said of files that agreed with the seal in this process


def prepare_once(
    folder: Path, fill: Callable[[Path], None], *, sound: Callable[[Path], bool] | None = None
) -> Path:
    """Returns `folder`, made by `fill(temporary_folder)` if it does not exist or was damaged.

    Processes that want the same folder at once wait for the first. Files that `fill` did not write
    are ignored and left alone.

    Args:
        folder: the folder to open.
        fill: writes the files.
        sound: returns whether a folder without a seal, from an earlier version, is right; if so, it
            is sealed as it is. None means that such a folder is made again.

    Raises:
        UserError: when the disk is full or may not be written, or a file may not be read.
    """
    if folder.is_dir() and _trouble(folder, sound) is None:
        return folder
    make_folder(folder.parent)
    with disk_errors(folder), locked(folder.with_name(f".{folder.name}.lock")):
        if folder.is_dir():  # another process was faster, or the folder is damaged
            trouble = _trouble(folder, sound)
            if trouble is None:
                return folder
            _log.warning("%s: %s; it is made again", folder, trouble)
            _remove(folder)
        for stale in folder.parent.glob(f".{glob.escape(folder.name)}.tmp-*"):
            shutil.rmtree(stale, ignore_errors=True)
        temporary = _temporary(folder)
        try:
            fill(temporary)
            seal_folder(temporary)
            temporary.chmod(0o755)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    return folder


def is_whole(folder: Path) -> bool:
    """Returns whether a folder of prepared data exists and agrees with its seal."""
    return folder.is_dir() and _trouble(folder, None) is None


def remove_damaged(folder: Path, of_interest: Callable[[str], bool] = lambda name: True) -> bool:
    """Removes a sealed folder that does not agree with its seal, with a warning.

    Args:
        folder: the folder; it need not exist.
        of_interest: returns whether the file of a name is compared.

    Returns:
        Whether it was removed.

    Raises:
        UserError: when a file may not be read, or the folder may not be removed.
    """
    if not (folder / SEAL).exists():
        return False
    damage = _damage(folder, of_interest)
    if damage is not None:
        _log.warning("%s: was damaged (%s); it is made again", folder, damage)
        with disk_errors(folder):
            _remove(folder)
    return damage is not None


def seal_folder(folder: Path) -> None:
    """Writes the fingerprints of every file of a folder into its seal.

    Raises:
        UserError: when the disk is full or may not be written.
    """
    write_seal(folder, fingerprints(folder, (name for name in files(folder) if name != SEAL)))


def fingerprints(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns the size of each file ("bytes") and the hex SHA-256 of each `PIECE` of it ("sha256").

    Raises:
        OSError: for a file that does not exist or cannot be read.
    """
    sizes = {name: (folder / name).stat().st_size for name in names}
    pieces = [(name, at) for name, size in sizes.items() for at in range(0, size or 1, PIECE)]
    found: dict[str, dict[str, Any]] = {
        name: {"bytes": size, "sha256": []} for name, size in sizes.items()
    }
    with ThreadPoolExecutor(_THREADS) as pool:
        hashed = pool.map(lambda piece: _hash_piece(folder / piece[0], piece[1]), pieces)
        for (name, _), digest in zip(pieces, hashed, strict=True):
            found[name]["sha256"].append(digest)
    return found


def _hash_piece(path: Path, start: int) -> str:
    digest, left = hashlib.sha256(), PIECE
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        while left and (data := file.read(min(_READ, left))):
            digest.update(data)
            left -= len(data)
    return digest.hexdigest()


def write_seal(folder: Path, found: dict[str, dict[str, Any]]) -> None:
    """Writes the fingerprints of a folder's files into its seal.

    Raises:
        UserError: when the disk is full or may not be written.
    """
    seal = {"format": FORMAT, "files": found, "sha256": _hash_tree(found)}
    write_whole(folder / SEAL, json.dumps(seal, indent=1) + "\n")


def read_seal(folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the fingerprints in a folder's seal.

    Raises:
        OSError: when the seal cannot be read.
        ValueError: when the seal was changed.
    """
    try:
        seal = read_json(folder / SEAL)
        found = seal["files"]
        if seal["format"] == FORMAT and seal["sha256"] == _hash_tree(found):
            return dict(found)
    except (TypeError, KeyError):
        pass
    raise ValueError("was changed")


def _hash_tree(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _trouble(folder: Path, sound: Callable[[Path], bool] | None) -> str | None:
    """Returns why a folder has to be made again, or None."""
    if not (folder / SEAL).exists():
        if sound is None:
            return "has no checksums, as an earlier version made it"
        if not sound(folder):
            return f"was damaged ({SEAL} is missing and the files do not fit together)"
        with suppress(OSError, UserError):  # a read-only cache is used as it is
            seal_folder(folder)
        return None
    damage = _damage(folder)
    return None if damage is None else f"was damaged ({damage})"


def _damage(folder: Path, of_interest: Callable[[str], bool] = lambda name: True) -> str | None:
    """Returns the first file that differs from the seal and how, or None for a whole folder."""
    key = os.path.abspath(folder)
    try:
        wanted = {name: about for name, about in read_seal(folder).items() if of_interest(name)}
    except PermissionError as error:
        raise UserError(f"{folder / SEAL}: cannot be read: {error.strerror}") from None
    except (OSError, ValueError):
        return f"{SEAL} was changed"
    seen = {}
    for name, about in sorted(wanted.items()):
        try:
            stat = (folder / name).stat()
        except OSError:
            return f"{name} is missing"
        if stat.st_size != about["bytes"]:
            return f"{name} has {stat.st_size:,} bytes, not {about['bytes']:,}"
        seen[name] = (stat.st_size, stat.st_mtime_ns, stat.st_ino, about["sha256"])
    if seen.items() <= _whole.get(key, {}).items():
        return None
    try:
        found = fingerprints(folder, wanted)
    except PermissionError as error:
        raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror}"
    for name, about in wanted.items():
        if found[name]["sha256"] != about["sha256"]:
            return f"{name} was changed"
    _whole[key] = {**_whole.get(key, {}), **seen}
    return None


def _temporary(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}.tmp-", dir=folder.parent))


def _remove(folder: Path) -> None:
    """Moves a folder aside, which is one operation, and removes it; files stay mapped where a
    process has mapped them."""
    aside = _temporary(folder)
    folder.rename(aside / folder.name)
    shutil.rmtree(aside, ignore_errors=True)
