"""What every command writes: a document on standard output, lines on standard error."""

import json
import sys
from typing import Any


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, indent=1, ensure_ascii=False))


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)
