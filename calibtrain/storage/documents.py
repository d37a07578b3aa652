"""JSON documents that state their format (`run.json`, evaluations, studies): one reader, one check.

Documents that hold results end in the SHA-256 of the rest of them, so that a changed digit is
noticed; those of earlier versions have no checksum.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.storage.json_text import read_json
from calibtrain.storage.places import in_bucket

FORMAT = 1
CHECKSUM = "sha256"


def read_document(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object of a format that this version knows.

    Args:
        path: the file, on a disk or in a bucket.
        remedy: what the user can do about a file that is missing, or damaged and removed.

    Raises:
        UserError: for a file that is missing, damaged or of another format.
    """
    try:
        found = read_json(path, finite=True)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {remedy}") from None
    except OSError as error:
        if in_bucket(path):
            raise  # `reached` makes a message of it
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); remove it, and {remedy}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: is damaged (it is not a JSON object); remove it, and {remedy}")
    if "format" not in found:
        raise UserError(f"{path}: is damaged (it does not say its format); remove it, and {remedy}")
    form = found["format"]
    if type(form) is not int or form != FORMAT:
        raise UserError(
            f"{path}: has format {str(form)[:40]}; this version reads format {FORMAT}: use the "
            "version of calibtrain that wrote it"
        )
    try:
        return unsealed(found)
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); remove it, and {remedy}") from None


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a document with the checksum that `read_document` compares."""
    return {**document, CHECKSUM: _checksum(document)}


def unsealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a document without its checksum, if it has one.

    Raises:
        ValueError: where the checksum does not match the content.
    """
    rest = {key: value for key, value in document.items() if key != CHECKSUM}
    if document.get(CHECKSUM) not in (None, _checksum(rest)):
        raise ValueError(f"its {CHECKSUM} is not that of its content: something was changed")
    return rest


def _checksum(document: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
