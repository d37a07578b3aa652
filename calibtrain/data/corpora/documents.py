"""A document and a source of documents, as every kind of corpus provides them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

END = 256
"""The symbol for the end of a document; 0 to 255 are the bytes."""
SYMBOLS = 257


@dataclass(frozen=True)
class Document:
    """A text and its name; documents are never joined."""

    id: str
    text: str
    group: str = ""
    """The group by which results are also given, beside the pooled ones; "" where there is none."""


@dataclass(frozen=True)
class Source:
    """Documents in a fixed order, and facts about them that are known before reading."""

    description: str
    """A sentence that says where the text comes from."""
    version: str
    """The version, which distinguishes this text from later editions of it."""
    fingerprint: str
    """A text that changes whenever the documents may have changed."""
    read: Callable[[], Iterator[tuple[str | None, Document]]]
    """Yields the documents, each with the split that its publisher gave it, if any."""
    entropy_bits_per_byte: Callable[[], float | None] = lambda: None
    """Returns the exact entropy rate, or None where it is not known."""
