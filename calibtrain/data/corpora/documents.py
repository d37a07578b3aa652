"""Documents: one of them, a source of them, and a corpus, which holds them in three splits."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, overload

from calibtrain.errors import UserError

END = 256
"""The symbol for the end of a document; 0 to 255 are the bytes."""
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


@dataclass(frozen=True)
class SplitSize:
    """The size of a split."""

    documents: int
    bytes: int
    """Bytes of UTF-8 text."""


@dataclass(frozen=True)
class Provenance:
    """The exact identity of a text."""

    name: str
    """The corpus as it was asked for: "kjv", "files:...", "tfds:lm1b"."""
    source: str
    """A sentence that says where the text comes from."""
    version: str
    """The version of the package, of the TFDS data set or of Python."""
    content_hash: str
    """16 hex digits of SHA-256 over every document's split, id and text."""
    splits: dict[str, SplitSize]
    entropy_bits_per_byte: float | None = None
    """The exact entropy rate, where it is known (markov)."""

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "Provenance":
        """Reads what `to_dict` returns."""
        splits = {name: SplitSize(**size) for name, size in tree["splits"].items()}
        return cls(**{**tree, "splits": splits})


class Documents(Sequence[Document]):
    """The documents of a split, in the order of their source, read from disk on access."""

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
    """Documents in the splits train, validation and test, and their provenance."""

    def __init__(self, provenance: Provenance, records: Mapping[str, Any]):
        self.provenance = provenance
        self._records = records

    def documents(self, split: str) -> Sequence[Document]:
        """Returns the documents of a split, by random access.

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
        """Returns the group of each document of a split; "" where there is none."""
        return tuple(document.group for document in self.documents(split))
