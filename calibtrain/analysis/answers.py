"""What a text answers: the part of it that is compared with other answers.

An answer is a string that is equal to another exactly where both say the same: `3.50` and `3.5` are
one number. A text that holds no answer gives None, which is counted and not an answer of its own.
"""

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

from calibtrain.errors import UserError

Extraction = Callable[[str], str | None]
"""A generated text -> its answer, or None where it has none."""

_NUMBER = re.compile(r"[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")
_LETTER = re.compile(r"(?<![^\W_])\(?([A-Ha-h])\)?(?![^\W_])")
_LABELLED = re.compile(r"(?i:answer|choice|option)(?:\s+is)?\s*:?\s*\(?([A-Ha-h])\)?(?![^\W_])")


def whole_text(text: str) -> str | None:
    """Returns the text with its white space made even; None for a text of white space alone.

    Example:
        >>> whole_text("  Rome,\\n of course. ")
        'Rome, of course.'
    """
    return " ".join(text.split()) or None


def first_line(text: str) -> str | None:
    """Returns the first line that is not empty, in lower case, without punctuation at its ends.

    Characters are those of Unicode's compatibility form (NFKC), so that wide and narrow forms are
    one.

    Example:
        >>> first_line("\\n The Sea of Galilee. \\nAnd he said"), first_line("...")
        ('the sea of galilee', None)
    """
    for line in text.splitlines():
        if even := " ".join(unicodedata.normalize("NFKC", line).casefold().split()):
            ends = [i for i, letter in enumerate(even) if _says_something(letter)]
            return even[ends[0] : ends[-1] + 1] if ends else None
    return None


def number(text: str) -> str | None:
    """Returns the last number of a text in one spelling: a reasoning ends in its result.

    Thousands may be parted by commas. Zero is a number.

    Example:
        >>> number("2 and 2 make 4.0."), number("1,024 bytes"), number("-0"), number("none")
        ('4', '1024', '0', None)
    """
    found = [each for each in _NUMBER.findall(text) if any(map(str.isdigit, each))]
    if not found:
        return None
    try:
        value = Decimal(found[-1].replace(",", "").replace("−", "-"))
    except InvalidOperation:
        return None
    if value == 0:
        return "0"
    return f"{value.normalize():f}" if abs(value.adjusted()) < 40 else str(value.normalize())


def letter(text: str) -> str | None:
    """Returns the letter of a choice, A to H: the one that is labelled an answer, or the first.

    A letter within a word is none. A small `a` that is the article is told from a choice only by
    its place: it counts where the text has no more than a letter, or in brackets.

    Example:
        >>> letter("The answer is (b)."), letter("C) Rome"), letter("a city in Italy, so D")
        ('B', 'C', 'D')
    """
    if labelled := _LABELLED.search(text):
        return labelled.group(1).upper()
    for each in _LETTER.finditer(text):
        alone = text.strip().strip("().:") == each.group(1)
        if each.group(1).isupper() or each.group(0).startswith("(") or alone:
            return each.group(1).upper()
    return None


def _says_something(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNMS"


EXTRACTIONS: dict[str, Extraction] = {
    "whole": whole_text,
    "first-line": first_line,
    "number": number,
    "letter": letter,
}
"""The ways of finding an answer by the names that users give; `regex:PATTERN` is another."""


def extraction_of(name: str) -> Extraction:
    """Returns the way of finding an answer with a name.

    `regex:PATTERN` gives what the first group of the first match holds, or the match where the
    pattern has no group, with its white space made even.

    Raises:
        UserError: for an unknown name or a pattern that cannot be read.

    Example:
        >>> extraction_of("regex:is (\\\\w+)")("The capital is Rome, it is said.")
        'Rome'
    """
    if name in EXTRACTIONS:
        return EXTRACTIONS[name]
    kind, _, source = name.partition(":")
    if kind != "regex" or not source:
        allowed = ", ".join([*EXTRACTIONS, "regex:PATTERN"])
        raise UserError(f"extract: {name!r} is not known; allowed are {allowed}")
    try:
        pattern = re.compile(source)
    except re.error as error:
        raise UserError(f"extract: {source!r} is not a regular expression: {error}") from None

    def matched(text: str) -> str | None:
        found = pattern.search(text)
        if found is None:
            return None
        return whole_text((found.group(1) if pattern.groups else found.group(0)) or "")

    return matched
