"""The exceptions that end a command with one clear line, and how that line shows a value."""

import json
import math
from collections.abc import Mapping
from typing import Any

LONGEST_VALUE = 80
"""Characters of a value that a message repeats."""
LONGEST_MESSAGE = 2_000
"""Characters of a line: room for several mistakes and the paths in them."""


class UserError(Exception):
    """A mistake the user can act on; the message names the key, the value and what is allowed.

    Exit status 2.
    """

    status = 2


class TransientError(UserError):
    """A failure that is nobody's mistake: the same command may succeed when it is started again.

    Exit status 75 (EX_TEMPFAIL of sysexits.h).
    """

    status = 75


class LostError(TransientError):
    """Another process of the run is lost, or cannot be told anything any more."""


class NonFiniteError(UserError):
    """A model's figure is infinite or NaN: its training diverged."""


DIVERGED_ADVICE = (
    "Try a lower optimizer.learning_rate, a larger optimizer.epsilon or optimizer.warmup_fraction, "
    "a smaller optimizer.clip_norm, or model.compute=float32, in another --run"
)
"""What a user can do about a run that diverged."""


def require_finite(figures: Mapping[str, Any], step: int) -> None:
    """Raises a NonFiniteError that names the first figure which is infinite or NaN.

    Args:
        figures: by name; what is not a float is passed over.
        step: at which they were measured.
    """
    for name, value in figures.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise NonFiniteError(f"the {name.replace('_', ' ')} is {value} at step {step}")


class SettingError(UserError):
    """A mistake in a setting; commands without a configuration give the setting another name.

    Attributes:
        setting: the key of the setting, such as `corpus.field`.
    """

    def __init__(self, before: str, setting: str, after: str = ""):
        """Args:
        before: the message up to the key.
        setting: the key.
        after: the rest of the message.
        """
        self._around = before, after
        self.setting = setting
        super().__init__(self.said_of(setting))

    def said_of(self, name: str) -> str:
        """Returns the message with another name in place of the key."""
        before, after = self._around
        return f"{before}{name}{after}"


def shown(value: Any, longest: int = LONGEST_VALUE) -> str:
    """Returns a value as a message repeats it: JSON on one line, control characters escaped, short.

    Args:
        value: plain data; a value that JSON does not have is shown as its text.
        longest: how many characters of it are shown at most.

    Example:
        >>> shown("a" * 1_000_000, 5)
        '"aaaa... (1,000,002 characters)'
        >>> shown({"width": 8, "tied": None})
        '{"width": 8, "tied": null}'
    """
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):  # cut first, so that a long text is not copied several times
        text = json.dumps(value[: longest + 1], ensure_ascii=False)
        length = len(value) + 2
    else:
        try:
            text = json.dumps(value, default=str, ensure_ascii=False)
        except (ValueError, TypeError, RecursionError):  # an integer of thousands of digits
            return f"a {type(value).__name__} that is too large to be shown"
        length = len(text)
    if length > longest:
        return f"{printable(text[:longest])}... ({length:,} characters)"
    return printable(text)


def quoted(text: str, longest: int = LONGEST_VALUE) -> str:
    """Returns a name as a message repeats it: in single quotes, control characters escaped, short.

    Example:
        >>> print(quoted("a\x1b[2Jb"))
        'a\\x1b[2Jb'
    """
    if len(text) > longest:
        return f"{text[:longest]!r}... ({len(text):,} characters)"
    return repr(text)


def cut(text: str, longest: int = 200) -> str:
    """A text as a message shows it where it needs no quotes; one that is long is cut."""
    text = printable(text)
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"


def printable(text: str) -> str:
    """Returns a text in which escape sequences, line ends and lone surrogates are escaped.

    Example:
        >>> printable("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def one_line(text: str) -> str:
    """Returns a message as it is printed: one printable line; a long one loses its middle."""
    text = printable(" ".join(text.splitlines()))
    if len(text) <= LONGEST_MESSAGE:
        return text
    half = LONGEST_MESSAGE // 2
    return f"{text[:half]} [... {len(text) - 2 * half:,} characters ...] {text[-half:]}"
