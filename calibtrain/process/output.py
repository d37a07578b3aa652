"""The output of every command: a document on standard output, lines on standard error.

A command does its work whether the standard streams are closed, full, or of an encoding that lacks
characters; a result that cannot be printed is an error of its own.
"""

import codecs
import io
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

_PLAIN = {"–": "-", "—": "-", "±": "+-", "✓": "v", "…": "...", "•": "*"}
"""Replacements for characters that an encoding does not have."""
_last = threading.Lock()


class OutputError(Exception):
    """Standard output cannot be written to; the cause is an OSError."""


def print_now(text: str) -> OutputError | None:
    """Prints text as it comes; returns the error of a standard output that cannot be written to."""
    try:
        print(text, end="", flush=True)
    except OutputError as error:
        return error
    return None


def print_json(document: Any) -> None:
    """Prints one JSON document on standard output, in ASCII, which every encoding has."""
    print(json.dumps(document, indent=1))


def can_print(text: str) -> bool:
    """Returns whether the encoding of standard output has every character of a text."""
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def say(text: str) -> None:
    """Prints a line on standard error."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        return  # closed or full: the exit status still says how it went


def say_notes(notes: Iterable[str]) -> None:
    """Prints each note once, on standard error."""
    for note in dict.fromkeys(notes):
        say(f"note: {note}")


class _Told(logging.Handler):
    """Passes warnings on as plain lines."""

    def __init__(self, tell: Callable[[str], None]):
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Passes a warning on."""
        self._tell(record.getMessage())


@contextmanager
def telling(tell: Callable[[str], None]) -> Iterator[None]:
    """Sends the warnings of this package to `tell` as lines, and to nothing else.

    A library warns through `logging`; the program decides how warnings look.
    """
    logger = logging.getLogger("calibtrain")
    before = logger.handlers[:], logger.propagate
    logger.handlers[:], logger.propagate = [_Told(tell)], False
    try:
        yield
    finally:
        logger.handlers[:], logger.propagate = before


def end(text: str, status: int) -> NoReturn:
    """Prints a last line, if any, and ends the process without destructors or exit handlers.

    Where several threads call this, the first one prints.
    """
    with _last:
        if text:
            say(text)
        os._exit(status)


def prepare_streams() -> None:
    """Makes the standard streams usable; call it before anything is read or written.

    A closed descriptor is opened, so that no file of the program gets its number and, with it, what
    libraries print. Standard error drops what it cannot write. Characters that an encoding does not
    have are replaced.
    """
    sys.stdin = sys.stdin or _opened(0, os.O_RDONLY, "r")
    if sys.stdout is None:
        sys.stdout = _opened(1, os.O_RDONLY, "w")  # read-only, so that a lost result is an error
    if sys.stderr is None:
        sys.stderr = _opened(2, os.O_WRONLY, "w")
    sys.stdout = stream(sys.stdout, _Stdout)
    sys.stderr = stream(sys.stderr, _Stderr)


def stream(given: Any, kind: type[io.TextIOWrapper], descriptor: int | None = None) -> Any:
    """Returns a text stream of class `kind` in place of `given`, or `given` if it has no file.

    Args:
        given: the stream, whose encoding is kept.
        kind: the class of the new stream.
        descriptor: the file descriptor to write to; None means that of `given`.
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
    """Returns the stream over another descriptor, with the same handling of errors."""
    if isinstance(given, _Stdout | _Stderr | io.TextIOWrapper):
        return stream(given, type(given), descriptor)
    return given


def drop_output() -> None:
    """Discards output that is not written yet, so that the end of the interpreter does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Stdout(io.TextIOWrapper):
    """Standard output; its errors are OutputErrors, unlike those of other files."""

    def write(self, text: str) -> int:
        """Writes, or raises OutputError."""
        try:
            return super().write(text)
        except OSError as error:
            raise OutputError from error

    def flush(self) -> None:
        """Flushes, or raises OutputError."""
        try:
            super().flush()
        except OSError as error:
            raise OutputError from error


class _Stderr(io.TextIOWrapper):
    """Standard error; what cannot be written is dropped, so that the work goes on."""

    def write(self, text: str) -> int:
        """Writes, if possible."""
        try:
            return super().write(text)
        except OSError:
            return len(text)

    def flush(self) -> None:
        """Flushes, if possible."""
        try:
            super().flush()
        except OSError:
            return


def _opened(descriptor: int, flags: int, mode: str) -> Any:
    """Returns a stream to the null device, over a standard descriptor that was closed."""
    null = os.open(os.devnull, flags)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    os.set_inheritable(descriptor, True)
    return open(descriptor, mode, encoding="utf-8", closefd=False)


def _degrade(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replaces characters that an encoding lacks by ASCII; bytes of file names stay as they are."""
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
