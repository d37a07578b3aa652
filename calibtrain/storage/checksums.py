"""SHA-256 of the files of a folder, to notice a copy that was cut short or changed."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from calibtrain.storage.places import files


def checksum(path: Path) -> str:
    """Returns the hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Returns the hex SHA-256 of each file of a folder, by its path relative to the folder.

    Args:
        folder: on a disk or in a bucket.
        names: names of the files; None means every file below the folder.
    """
    return {name: checksum(folder / name) for name in (files(folder) if names is None else names)}
