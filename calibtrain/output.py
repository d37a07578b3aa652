"""What every command writes: a document on standard output, lines on standard error."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def print_json(document: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(document, indent=1, ensure_ascii=False))


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


class _Told(logging.Handler):
    """Passes warnings on as plain lines."""

    def __init__(self, tell: Callable[[str], None]):
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Tell a warning."""
        self._tell(record.getMessage())


@contextmanager
def telling(tell: Callable[[str], None]) -> Iterator[None]:
    """Let `tell` have the warnings of this package as lines, in place of whoever had them before.

    A library warns through `logging`; how that looks is for the program to say.
    """
    logger = logging.getLogger("calibtrain")
    before = logger.handlers[:], logger.propagate
    logger.handlers[:], logger.propagate = [_Told(tell)], False
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before
