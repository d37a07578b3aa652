"""Reading of `metrics.jsonl`, which holds one JSON object per line, with a step and numbers."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.storage.json_text import parse_json


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads every whole line; a last line without its line end is left out.

    Args:
        path: the file, on a disk or in a bucket.

    Raises:
        OSError: when the file cannot be read.
        UserError: when a line is damaged; the message names it.
    """
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            lines.append(parse_json(text, finite=True))
            whole = _is_metrics(lines[-1])
        except ValueError:
            whole = False
        if not whole:
            raise UserError(
                f"{path}: line {number} is not a JSON object with a step and numbers; remove that "
                "line, and training goes back to a checkpoint before it"
            )
    return lines


def fingerprint(text: str) -> dict[str, Any]:
    """Returns how many whole lines a text has ("lines") and their hex SHA-256 ("sha256")."""
    lines = text.encode().split(b"\n")[:-1]
    return {"lines": len(lines), "sha256": _hash(lines)}


def begins_with(path: Path, known: Mapping[str, Any]) -> bool:
    """Returns whether a file begins with the lines of an earlier `fingerprint`, byte for byte."""
    lines = _whole_lines(path)[: known["lines"]]
    return len(lines) == known["lines"] and _hash(lines) == known["sha256"]


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1] if path.exists() else []


def _hash(lines: list[bytes]) -> str:
    return hashlib.sha256(b"".join(line + b"\n" for line in lines)).hexdigest()


def is_evaluation(line: Mapping[str, Any]) -> bool:
    """Returns whether a line is from an evaluation; the others are from training."""
    return any(name.startswith("eval/") for name in line)


def _is_metrics(line: Any) -> bool:
    """Returns whether a line holds a step and numbers (null is allowed in an evaluation)."""
    return (
        isinstance(line, dict)
        and type(line.get("step")) is int
        and all(
            type(value) in (int, float) or (value is None and name.startswith("eval/"))
            for name, value in line.items()
        )
    )
