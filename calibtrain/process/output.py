"""What every command writes: a document on standard output, lines on standard error.

Whatever the three standard streams are (closed, full, of an encoding without our characters), a
command does its work; a result that cannot be printed is an error of its own.
"""

import codecs
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

_PLAIN = {"–": "-", "—": "-", "±": "+-", "✓": "v", "…": "...", "•": "*"}
"""What stands for a character that an encoding does not have."""
_last = threading.Lock()


class OutputError(Exception):
    """Standard output does not take what is written to it; the cause is an OSError."""


def print_json(document: Any) -> None:
    """One JSON document on standard output, in ASCII: any encoding has its characters."""
    print(json.dumps(document, indent=1))


def can_print(text: str) -> bool:
    """Whether standard output has every character of a text."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def say(text: str) -> None:
    """A line on standard error."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return  # it is closed or full: the exit status still tells


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


def end(text: str, status: int) -> NoReturn:
    """Say a last line, if any, and end the process at once: no destructor or exit handler runs.

    Of several threads that come here, the first one speaks.
    """
    with _last:
        if text:
            say(text)
        os._exit(status)


def prepare_streams() -> None:
    """Make the standard streams usable; call before anything is read or written.

    A descriptor that is closed is opened, so that no file that the program opens gets its number
    and then what libraries print. Standard error drops what it cannot write. What an encoding does
    not have is replaced.
    """
    sys.stdin = sys.stdin or _opened(0, os.O_RDONLY, "r")
    if sys.stdout is None:
        sys.stdout = _opened(1, os.O_RDONLY, "w")  # cannot be written: a result is not lost unseen
    if sys.stderr is None:
        sys.stderr = _opened(2, os.O_WRONLY, "w")
    sys.stdout = stream(sys.stdout, _Stdout)
    sys.stderr = stream(sys.stderr, _Stderr)


def stream(given: Any, kind: type[io.TextIOWrapper], descriptor: int | None = None) -> Any:
    """A text stream of a kind in place of `given`; one that is not over a file is left alone.

    Args:
        given: the stream, whose encoding is kept.
        kind: the new one's class.
        descriptor: what it writes to, if not what `given` does.
    """
    if type(given) is not io.TextIOWrapper and not isinstance(given, _Stdout | _Stderr):
        return given
    if descriptor is None:
        given.flush()
    line_buffering = given.line_buffering or given.write_through  # as with PYTHONUNBUFFERED
    encoding = given.encoding
    buffer: Any = given.detach() if descriptor is None else os.fdopen(descriptor, "wb")
    return kind(buffer, encoding=encoding, errors="degrade", line_buffering=line_buffering)


def rewired(given: Any, descriptor: int) -> Any:
    """The stream over another descriptor; it still degrades, drops or raises as it did."""
    if isinstance(given, _Stdout | _Stderr | io.TextIOWrapper):
        return stream(given, type(given), descriptor)
    return given


def drop_output() -> None:
    """Send what is still to be written nowhere, so that the interpreter's end does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Stdout(io.TextIOWrapper):
    """Standard output; its errors can be told from those of other files."""

    def write(self, text: str) -> int:
        """Write, or raise OutputError."""
        try:
            return super().write(text)
        except OSError as error:
            raise OutputError from error

    def flush(self) -> None:
        """Flush, or raise OutputError."""
        try:
            super().flush()
        except OSError as error:
            raise OutputError from error


class _Stderr(io.TextIOWrapper):
    """Standard error; what cannot be written is dropped, for work is worth more than its story."""

    def write(self, text: str) -> int:
        """Write, if possible."""
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Flush, if possible."""
        try:
            super().flush()
        except OSError:
            return


def _opened(descriptor: int, flags: int, mode: str) -> Any:
    """A stream over a standard descriptor that was closed: the null device."""
    null = os.open(os.devnull, flags)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    os.set_inheritable(descriptor, True)
    return open(descriptor, mode, encoding="utf-8", closefd=False)


def _degrade(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what an encoding does not have: bytes of file names as they are, else by ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    replaced = b""
    for character in error.object[error.start : error.end]:
        code = ord(character)
        if 0xDC80 <= code <= 0xDCFF:  # a byte that Python could not decode (PEP 383)
            replaced += bytes([code - 0xDC00])
        else:
            plain = _PLAIN.get(character)
            replaced += (plain or character.encode("ascii", "backslashreplace").decode()).encode()
    return replaced, error.end


codecs.register_error("degrade", _degrade)
