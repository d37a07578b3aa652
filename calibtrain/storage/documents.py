"""JSON documents that say their format: `run.json`, evaluations, studies. One reader, one check."""

from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.storage.json_text import read_json

FORMAT = 1


def read_document(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a JSON object with a format that this version knows.

    Args:
        path: of the file, on a disk or in a bucket.
        remedy: what the user can do about one that is missing or damaged.

    Raises:
        UserError: for a file that is missing, damaged or of another format.
    """
    try:
        found = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; {remedy}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is damaged ({error}); {remedy}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: is damaged (it is not a JSON object); {remedy}")
    if "format" not in found:
        raise UserError(f"{path}: is damaged (it does not say its format); {remedy}")
    form = found["format"]
    if type(form) is not int or form != FORMAT:
        raise UserError(
            f"{path}: has format {str(form)[:40]}; this version reads format {FORMAT}: use the "
            "version of calibtrain that wrote it"
        )
    return found
