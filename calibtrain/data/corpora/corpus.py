"""A corpus: documents in three splits, prepared once through TFDS and read by random access.

Every source of text (`sources`) ends up in the same form under the cache: `array_record` files and
a `provenance.json` that says what text this is, to the byte.
"""

import dataclasses
import hashlib
import json
import shutil
import struct
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from calibtrain.config import CorpusConfig
from calibtrain.data.corpora.documents import Document, Source
from calibtrain.data.corpora.named import parse_corpus
from calibtrain.data.corpora.sources import source_of
from calibtrain.data.corpora.splits import SPLITS, assign_splits, text_key
from calibtrain.errors import UserError
from calibtrain.storage.disk import cache_directory, disk_errors
from calibtrain.storage.json_text import read_json
from calibtrain.storage.prepared import prepare_once

__all__ = [
    "Corpus",
    "Document",
    "Provenance",
    "SplitSize",
    "TooFewDocuments",
    "cache_directory",
    "open_corpus",
    "parse_corpus",
]

_FORM = 2  # of the prepared folder and of the rule that splits; a new one prepares anew
_LARGEST = 2**30  # bytes a document; a TFDS record must stay below 2 GiB


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


class TooFewDocuments(UserError):
    """A corpus that cannot be split: each split needs a document of its own."""


def open_corpus(config: CorpusConfig, cache: Path, *, split: bool = True) -> Corpus:
    """Open a corpus, preparing it once under `cache`, and again once it was damaged there.

    Splits are by document and depend on the texts and the shares alone (see `splits`); a TFDS data
    set that has splits of its own keeps them as published.

    Args:
        config: which text.
        cache: where it is prepared.
        split: whether a document is in one split alone; else all of them are in each, to be
            measured on and not trained on.

    Raises:
        TooFewDocuments: fewer distinct documents than there are splits.
        UserError: text that is not there or cannot be read exactly; a split without a byte of text;
            a cache that is full or read-only.
    """
    cache = cache.absolute()
    with disk_errors(cache):
        source = source_of(config, cache)
    folder = cache / "corpora" / f"{config.name.partition(':')[0]}-{_key(config, source)}"
    if not split:
        folder = folder.with_name(f"{folder.name}-unsplit")
    prepare_once(folder, lambda made: _prepare(config, source, made, split), sound=_is_sound)
    corpus = _read(folder, config.name)
    if corpus is None:
        raise UserError(f"{folder}: cannot be read; delete it, or set CALIBTRAIN_CACHE elsewhere")
    return corpus


# --- preparing -----------------------------------------------------------------------------------


def _key(config: CorpusConfig, source: Source) -> str:
    parts = [_FORM, config.name.partition(":")[0], source.version, source.fingerprint]
    shares = [config.validation_fraction, config.test_fraction]
    return hashlib.sha256(json.dumps(parts + shares).encode()).hexdigest()[:16]


def _prepare(config: CorpusConfig, source: Source, folder: Path, split: bool) -> None:
    from calibtrain.data.corpora.builder import Spool, read_documents, write_documents

    work = folder / "work"
    work.mkdir()
    keys, own = array("Q"), array("b")
    with (work / "spool").open("w+b") as file:
        spool = Spool(file)
        for side, document in source.read():
            if len(document.text.encode()) > _LARGEST:
                raise UserError(
                    f"corpus {config.name}: document {document.id!r} is larger than 1 GiB; "
                    "cut it up"
                )
            spool.append(document)
            keys.append(text_key(document.text))
            own.append(SPLITS.index(side) if side else -1)
        numbers = {name: np.arange(len(keys)) for name in SPLITS}
        if split or not keys:
            numbers = _split(config, np.array(keys, np.uint64), np.array(own, np.int8))
        write_documents(spool, numbers, work).rename(folder / "records")
    shutil.rmtree(work)
    provenance = _describe(config, source, read_documents(folder / "records"))
    if sum(size.documents for size in provenance.splits.values()) != sum(
        map(len, numbers.values())
    ):
        raise UserError(f"{folder}: documents were lost while writing; is the disk full?")
    for name, size in provenance.splits.items():
        if not size.bytes:
            raise UserError(
                f"corpus {config.name}: the {name} split holds only empty documents; leave empty "
                "documents out, or give more text"
            )
    (folder / "provenance.json").write_text(json.dumps(provenance.to_dict(), indent=2), "utf-8")


def _split(config: CorpusConfig, keys: np.ndarray, own: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of each split's documents: as published, the rest by rule."""
    if not keys.size:
        raise UserError(f"corpus {config.name}: holds no documents")
    shares = {"validation": config.validation_fraction, "test": config.test_fraction}
    missing = {name: share for name, share in shares.items() if SPLITS.index(name) not in own}
    free = own < 0
    assigned = assign_splits(keys[free], missing)
    if assigned is None:
        raise TooFewDocuments(
            f"corpus {config.name}: holds {np.unique(keys[free]).size} distinct document(s) to "
            f"split, and train{''.join(f', {name}' for name in missing)} need at least one each; "
            "give more documents, for example one for each chapter of a long text"
        )
    side = own.copy()
    side[free] = assigned
    return {name: np.flatnonzero(side == index) for index, name in enumerate(SPLITS)}


def _describe(config: CorpusConfig, source: Source, records: Mapping[str, Any]) -> Provenance:
    """Provenance from the records as they were stored, every one read back."""
    content_hash, splits = _measure(records)
    return Provenance(
        name=config.name,
        source=source.description,
        version=source.version,
        content_hash=content_hash,
        splits=splits,
        entropy_bits_per_byte=source.entropy_bits_per_byte(),
    )


def _measure(records: Mapping[str, Any]) -> tuple[str, dict[str, SplitSize]]:
    """The content hash, and how much text each split holds."""
    digest = hashlib.sha256()
    splits = {}
    for name in SPLITS:
        size = 0
        for record in records[name]:
            lengths = struct.pack(
                "<BQQ", SPLITS.index(name), len(record["id"]), len(record["text"])
            )
            digest.update(lengths + record["id"] + record["text"])
            size += len(record["text"])
        splits[name] = SplitSize(documents=len(records[name]), bytes=size)
    return digest.hexdigest()[:16], splits


def _is_sound(folder: Path) -> bool:
    """Whether a prepared folder holds the text that its provenance tells of, to the byte."""
    from calibtrain.data.corpora.builder import read_documents

    corpus = _read(folder, "")
    try:
        found = _measure(read_documents(folder / "records"))
    except Exception:  # whatever the readers of damaged records raise
        return False
    return corpus is not None and found == (
        corpus.provenance.content_hash,
        corpus.provenance.splits,
    )


def _read(folder: Path, name: str) -> Corpus | None:
    """The corpus in a prepared folder; None if it cannot be read."""
    from calibtrain.data.corpora.builder import read_documents

    try:
        tree = read_json(folder / "provenance.json")
        provenance = Provenance.from_dict(tree | {"name": name})
        records = read_documents(folder / "records")
        whole = all(
            len(records[split]) == size.documents and records[split][size.documents - 1]
            for split, size in provenance.splits.items()
        )
    except Exception:
        return None
    return Corpus(provenance, records) if whole else None
