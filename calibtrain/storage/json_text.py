"""Strict reading of JSON: a text that is not JSON always raises a `ValueError` of one line."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

MOST_DIGITS = 308
"""Digits that an integer may have: with so many, it always fits into a float."""


def parse_json(text: str | bytes, *, finite: bool = False) -> Any:
    """Parses a JSON document.

    Args:
        text: the document; bytes are read as UTF-8.
        finite: whether NaN and numbers beyond the largest float are refused, as in the files that
            this program writes, which hold none.

    Raises:
        ValueError: with a message of one line, for a text that is not JSON (or not UTF-8), that is
            nested too deeply to be parsed, that holds an integer of more than `MOST_DIGITS` digits,
            or an object with the same key twice.

    Example:
        >>> parse_json('{"rows": 8}')
        {'rows': 8}
        >>> parse_json('{"rows": 8, "rows": 9}')
        Traceback (most recent call last):
        ValueError: key 'rows' is given twice
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        return (_FINITE if finite else _ANY).decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg}, line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 (byte {error.start + 1})") from None


def read_json(path: Path, *, finite: bool = False) -> Any:
    """Reads a file that holds one JSON document.

    Args:
        path: the file.
        finite: as for `parse_json`.

    Raises:
        OSError: when the file cannot be read.
        ValueError: when the text is not JSON, as for `parse_json`.
    """
    return parse_json(path.read_bytes(), finite=finite)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise ValueError(f"key {twice[:80]!r} is given twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:80]} is not a finite number")
    return number


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


_ANY = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)
_FINITE = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_finite, parse_constant=_finite
)
