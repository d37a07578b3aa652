"""A document, and a source of them: what every kind of corpus gives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

END = 256
"""The symbol of the end of a document, after the 256 bytes."""
SYMBOLS = 257


@dataclass(frozen=True)
class Document:
    """A text and the name it is known by; documents are never joined."""

    id: str
    text: str
    group: str = ""
    """What results are also given by, so that pooling hides none of it; "" where there is none."""


@dataclass(frozen=True)
class Source:
    """Documents in a fixed order, and what is known of them before they are read."""

    description: str
    """A sentence: where the text comes from."""
    version: str
    """What tells this text from later editions of it."""
    fingerprint: str
    """Changes whenever the documents may have changed."""
    read: Callable[[], Iterator[tuple[str | None, Document]]]
    """The documents, each with the split its publisher gave it, if any."""
    entropy_bits_per_byte: Callable[[], float | None] = lambda: None
    """The exact entropy rate, where it is known."""
