"""The checksums of a checkpoint's files, by which a damaged or changed one is noticed.

On a disk they are SHA-256, for which every file is read. A bucket computes the CRC-32C of an object
as it is written, and tells it with the object's size in a listing: a checkpoint of any size is
sealed and verified by one request, and nothing is read back. Generations are not compared, so that
a copied run is still whole.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.storage.disk import write_whole
from calibtrain.storage.json_text import parse_json
from calibtrain.storage.places import files, in_bucket, listing, reached

CHECKSUMS = "checksums.json"
_CRC, _SIZE = "crc32c", "size"


def write_checksums(path: Path) -> None:
    """Writes the checksums of a checkpoint, which make it whole.

    Raises:
        UserError: where they cannot be written.
    """
    write_whole(path / CHECKSUMS, json.dumps(_found(path)))


def verify(path: Path) -> None:
    """Compares the files of a checkpoint with those that were written.

    Those of a run that was copied out of a bucket, or into one, or written there by an earlier
    version, are compared by the checksums that they were sealed with.

    Raises:
        UserError: for a file that is missing, was changed, or was not there.
        ValueError: in words, for a checkpoint that is damaged.
    """
    try:
        with reached(path):
            wanted = parse_json((path / CHECKSUMS).read_text("utf-8"))
        if not isinstance(wanted, dict) or not wanted:
            raise ValueError("not the checksums of files")
    except (OSError, ValueError) as error:
        raise ValueError(f"{CHECKSUMS}: {error}") from None
    try:
        with reached(path):
            found = _found(path, like=wanted)
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from None
    for name in sorted({*wanted, *found}):
        if name not in found:
            raise ValueError(f"{name} is missing")
        if name not in wanted:
            raise UserError(
                f"{path / name}: lies in a checkpoint and was not written with it; remove that "
                "file, or put it elsewhere"
            )
        if found[name] != wanted[name]:
            raise ValueError(f"{name} was changed or cut short")


def _found(path: Path, like: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the checksums of every file of a checkpoint, by its relative path.

    Args:
        path: the checkpoint.
        like: checksums of the kinds that are wanted; None means those of the place.
    """
    like = like or {}
    if in_bucket(path):
        sealed = {
            name: {_CRC: about[_CRC], _SIZE: about["size"]}
            for name, about in listing(path).items()
            if CHECKSUMS not in name
        }
        by_content = [name for name in sealed if isinstance(like.get(name), str)]
        return {**sealed, **{name: _sha256(path / name) for name in by_content}}
    names = [name for name in files(path) if CHECKSUMS not in name]
    return {
        name: _crc32c(path / name) if isinstance(like.get(name), dict) else _sha256(path / name)
        for name in names
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _crc32c(path: Path) -> dict[str, Any]:
    """Returns what a bucket says of a file: its CRC-32C, big-endian, in base 64; and its size."""
    try:
        import google_crc32c
    except ImportError:
        raise UserError(
            f"{path.parent}: comes from a bucket, and its checksums need the package "
            "google-crc32c; install it with: pip install 'calibtrain[gcs]'"
        ) from None
    total = google_crc32c.Checksum()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return {_CRC: base64.b64encode(total.digest()).decode(), _SIZE: path.stat().st_size}
