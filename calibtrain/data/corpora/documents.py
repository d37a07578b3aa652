"""Documents: one of them, a source of them, and a corpus, which holds them in three splits."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

from calibtrain.errors import UserError

END = 256
"""The symbol of the end of a document, after the 256 bytes."""
SYMBOLS = 257
"""The 256 bytes and the end of a document."""


@dataclass(frozen=True)
class Document:
    """A text and its name; documents are never joined."""

    id: str
    text: str
    group: str = ""
    """The group that results are also given by; "" where there is none."""


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


@dataclass(frozen=True)
class SplitSize:
    """How much text a split holds."""

    documents: int
    bytes: int
    """Bytes of UTF-8 text."""


@dataclass(frozen=True)
class Provenance:
    """Which text this is, exactly."""

    name: str
    """The corpus as it was asked for: "kjv", "files:...", "tfds:lm1b"."""
    source: str
    """A sentence: where the text comes from."""
    version: str
    """The edition: of a package, of a TFDS data set, of Python."""
    content_hash: str
    """16 hex digits of SHA-256 over every document's split, id and text."""
    splits: dict[str, SplitSize]
    entropy_bits_per_byte: float | None = None
    """The exact entropy rate, where the source is known (markov)."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "Provenance":
        """The inverse of `to_dict`."""
        splits = {name: SplitSize(**size) for name, size in tree["splits"].items()}
        return cls(**{**tree, "splits": splits})


class Documents(Sequence[Document]):
    """The documents of a split, in the order of their source, read from disk when asked for."""

    def __init__(self, records: Any):
        self._records = records

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Document: ...
    @overload
    def __getitem__(self, index: slice) -> list[Document]: ...
    def __getitem__(self, index: int | slice) -> Document | list[Document]:
        numbers = range(len(self))[index]  # negative numbers, slices and IndexError as in a list
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        record = self._records[numbers]
        return Document(*(record[key].decode() for key in ("id", "text", "group")))

    def __iter__(self) -> Iterator[Document]:
        return (self[number] for number in range(len(self)))


class Corpus:
    """Documents in the splits train, validation and test, and where they come from."""

    def __init__(self, provenance: Provenance, records: Mapping[str, Any]):
        self.provenance = provenance
        self._records = records

    def documents(self, split: str) -> Sequence[Document]:
        """The documents of a split, by random access.

        Raises:
            UserError: for an unknown split.
        """
        if split not in self._records:
            allowed = ", ".join(self.provenance.splits)
            raise UserError(f"split: {split!r} is not allowed; allowed: {allowed}")
        return Documents(self._records[split])

    def named(self, name: str) -> "Corpus":
        """Returns the corpus with another name for its text."""
        return Corpus(dataclasses.replace(self.provenance, name=name), self._records)

    def groups(self, split: str) -> tuple[str, ...]:
        """The group of each document of a split; "" where there is none."""
        return tuple(document.group for document in self.documents(split))
