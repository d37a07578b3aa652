"""A sample of a split by bytes: stretches of as many documents as fit, the same for any vocabulary.

Documents differ more from each other than the parts of one do, so a sample of N bytes reads a piece
of many documents and not the whole of a few. What a sample is, and which bytes it holds, is told by
`facts`, so that two figures can be known to be of the same text.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from jaxtyping import Int

from calibtrain.data.batches.stream import document_order

LEAST = 64
"""Bytes of a document that a sample reads at least, where the document has them."""
MOST = 128
"""Bytes of a stretch at most: a document of which a sample reads more gives several, spread evenly
over it, which are read side by side."""
_GOLDEN = (5**0.5 - 1) / 2


class Documents(Protocol):
    """Names and sizes of documents."""

    @property
    def document_ids(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def document_bytes(self) -> Int[np.ndarray, " documents"]:
        """Bytes of text of each."""


class Stretch(NamedTuple):
    """Bytes start..stop of a document, and its end where `stop` is the number of its bytes."""

    document: int
    start: int
    stop: int


def whole(
    documents: Documents, chosen: Int[np.ndarray, " chosen"] | None = None
) -> tuple[Stretch, ...]:
    """Returns one stretch for each of some documents, all of it; None means every document."""
    sizes = documents.document_bytes
    numbers = np.arange(len(sizes)) if chosen is None else chosen
    return tuple(Stretch(int(number), 0, int(sizes[number])) for number in numbers)


def choose_stretches(documents: Documents, limit: int | None) -> tuple[Stretch, ...]:
    """Returns `limit` bytes of text, in stretches of as many documents as fit; None means all text.

    The documents are drawn evenly, and each gives as much as its length demands, but at least
    `LEAST` bytes. A stretch begins anywhere in its document with equal probability; what would go
    beyond the end is taken from the beginning, so that first and last bytes are not rarer than
    others. All this depends on the lengths of the documents alone, in bytes.

    >>> from types import SimpleNamespace
    >>> split = SimpleNamespace(document_bytes=np.array([1_000, 3_000]), document_ids=("a", "b"))
    >>> [stretch.stop - stretch.start for stretch in choose_stretches(split, 400)]
    [100, 300]
    """
    sizes = np.asarray(documents.document_bytes, np.int64)
    if limit is None or limit >= sizes.sum():
        return whole(documents)
    order = document_order(len(sizes), seed=0, epoch=0)
    order = order[sizes[order] > 0]
    enough = int(np.searchsorted(np.cumsum(sizes[order]), limit, side="left")) + 1
    order = order[: max(enough, limit // LEAST)]
    lengths = _lengths(sizes[order], limit)
    found = []
    for number, (document, length) in enumerate(zip(order, lengths, strict=True)):
        size = int(sizes[document])
        if length == size:
            found.append(Stretch(int(document), 0, size))
            continue
        begin = int((0.5 + number * _GOLDEN) % 1.0 * size)
        pieces = -(-int(length) // MOST)
        for piece in range(pieces):
            start = (begin + size * piece // pieces) % size
            stop = start + int(length) * (piece + 1) // pieces - int(length) * piece // pieces
            found.append(Stretch(int(document), start, min(stop, size)))
            found.append(Stretch(int(document), 0, stop - size))
    return tuple(sorted(stretch for stretch in found if stretch.stop > stretch.start))


def _lengths(sizes: Int[np.ndarray, " chosen"], limit: int) -> Int[np.ndarray, " chosen"]:
    """The bytes of each document: in proportion to its size, at least `LEAST`, `limit` in all."""
    least = np.minimum(sizes, LEAST)

    def at(share: float) -> Int[np.ndarray, " chosen"]:
        return np.clip(np.floor(share * sizes).astype(np.int64), least, sizes)

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle).sum() <= limit else (low, middle)
    lengths = at(low)
    left = limit - int(lengths.sum())
    if left < 0:  # the shares of all but the last document fit, or it would not have been taken
        lengths[-1] += left
    else:  # what rounding left over
        lengths[np.flatnonzero(lengths < sizes)[:left]] += 1
    return lengths


def scored_bytes(
    documents: Documents, stretches: Sequence[Stretch]
) -> Int[np.ndarray, " documents"]:
    """Returns how many bytes of each document the stretches hold."""
    found = np.zeros(len(documents.document_bytes), np.int64)
    for document, start, stop in stretches:
        found[document] += stop - start
    return found


def facts(documents: Documents, stretches: Sequence[Stretch], corpus_hash: str) -> dict[str, Any]:
    """Returns what results say of the text that was scored.

    Args:
        documents: of the split.
        stretches: what was scored of them.
        corpus_hash: of the content of their corpus.

    Returns:
        documents and bytes that were scored, of_documents and of_bytes of the split, cut: whether
        some document was not scored whole, and text_hash, which is equal where the very same bytes
        were.
    """
    sizes, scored = documents.document_bytes, scored_bytes(documents, stretches)
    read = sorted({stretch.document for stretch in stretches})
    digest = hashlib.sha256(corpus_hash.encode())
    for document, start, stop in sorted(stretches):
        name = documents.document_ids[document]
        digest.update(f"\n{name}\t{sizes[document]}\t{start}\t{stop}".encode())
    return {
        "documents": len(read),
        "of_documents": len(sizes),
        "bytes": int(scored.sum()),
        "of_bytes": int(sizes.sum()),
        "cut": bool((scored[read] < sizes[read]).any()),
        "text_hash": digest.hexdigest()[:16],
    }


def sample_of(
    documents: Documents, stretches: Sequence[Stretch], corpus_hash: str
) -> dict[str, Any]:
    """Returns `facts` as the `sample` of results; {} for documents without text."""
    if not documents.document_bytes.any():
        return {}
    return {"sample": facts(documents, stretches, corpus_hash)}
