"""Encoding of documents on all cores, in order; each is checked to come back byte for byte."""

import dataclasses
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import takewhile
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int

from calibtrain.errors import UserError

_CHARACTERS = 2**17  # per batch: a few milliseconds of work, small enough to share out evenly
_DOCUMENTS = 256  # per batch, where documents are short or empty
_AHEAD = 3  # batches per core that are encoded ahead, which bounds memory


class HasText(Protocol):
    """The attributes of a document that are used here."""

    @property
    def id(self) -> str: ...
    @property
    def text(self) -> str: ...


class LosslessTokenizer(Protocol):
    """The part of `data.tokenizers.tokenizer.Tokenizer` that is used here."""

    byte_lengths: Any

    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    def encode(self, text: str, /) -> Any: ...
    def encode_batch(self, texts: Any, /, *, threads: int) -> Any: ...
    def decode(self, ids: Any, /) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class EncodedDocuments:
    """Consecutive documents of a corpus, encoded.

    Attributes:
        names: names of the documents.
        ids: all their ids, int32, each document with its start and end.
        lengths: number of ids of each document, start and end included.
        document_bytes: UTF-8 bytes of each document.
    """

    names: tuple[str, ...]
    ids: Int[np.ndarray, " ids"]
    lengths: Int[np.ndarray, " documents"]
    document_bytes: Int[np.ndarray, " documents"]


def encode_documents(
    tokenizer: LosslessTokenizer, documents: Iterable[HasText], *, cores: int | None = None
) -> Iterator[EncodedDocuments]:
    """Encodes documents in batches, in their order, on any number of cores.

    Threads suffice, because SentencePiece and NumPy release Python's lock. A document is not
    divided.

    Args:
        tokenizer: the tokenizer that gives the ids.
        documents: documents, read a few batches ahead.
        cores: threads that encode; None means all cores that this process may use.

    Raises:
        UserError: for the first document that does not come back byte for byte; it names the
            offset.
    """
    cores = cores or available_cores()
    ahead: deque[Future[EncodedDocuments]] = deque()
    pool = ThreadPoolExecutor(cores)
    try:
        for batch in _batches(documents):
            ahead.append(pool.submit(_encode, tokenizer, batch))
            if len(ahead) >= _AHEAD * cores:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _batches(documents: Iterable[HasText]) -> Iterator[list[HasText]]:
    batch: list[HasText] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if characters >= _CHARACTERS or len(batch) >= _DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode(tokenizer: LosslessTokenizer, documents: list[HasText]) -> EncodedDocuments:
    try:
        raws = [document.text.encode() for document in documents]
        encoded = tokenizer.encode_batch([document.text for document in documents], threads=1)
    except (UnicodeEncodeError, UserError):
        for document in documents:
            _require_lossless(tokenizer, document)
        raise
    start, end = (np.array([i], np.int32) for i in (tokenizer.bos_id, tokenizer.eos_id))
    ids = np.concatenate([part for own in encoded for part in (start, own, end)])
    lengths = np.array([len(own) + 2 for own in encoded])
    raw_lengths = np.array([len(raw) for raw in raws])
    # Comparing the joined texts is not enough: a byte could have moved to the next document.
    firsts = np.cumsum(lengths) - lengths
    same_lengths = (np.add.reduceat(tokenizer.byte_lengths[ids], firsts) == raw_lengths).all()
    if not same_lengths or tokenizer.decode(ids) != b"".join(raws):
        for document in documents:
            _require_lossless(tokenizer, document)
        raise AssertionError("documents do not come back together, but each of them does alone")
    names = tuple(document.id for document in documents)
    return EncodedDocuments(names, ids, lengths, raw_lengths)


def _require_lossless(tokenizer: LosslessTokenizer, document: HasText) -> None:
    try:
        raw = document.text.encode()
    except UnicodeEncodeError as error:
        offset = len(document.text[: error.start].encode())
        raise UserError(
            f"document {document.id!r}: byte {offset}: a lone surrogate "
            f"(U+{ord(document.text[error.start]):04X}) has no UTF-8 bytes; remove it"
        ) from None
    try:
        back = tokenizer.decode(tokenizer.encode(document.text))
    except UserError as error:
        raise UserError(f"document {document.id!r}: {error}") from None
    if back != raw:
        offset = sum(takewhile(bool, (a == b for a, b in zip(raw, back, strict=False))))
        raise UserError(
            f"document {document.id!r}: byte {offset}: the tokenizer gives back "
            f"{back[offset : offset + 8]!r} for {raw[offset : offset + 8]!r}; "
            "only a lossless tokenizer can be used"
        )
