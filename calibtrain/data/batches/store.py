"""Documents tokenised once: a memory-mapped file of ids, and the exact bytes behind them."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from calibtrain.data.corpora.corpus import Corpus, Document
from calibtrain.data.tokenizers.encoder import encode_documents
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.storage.json_text import read_json
from calibtrain.storage.prepared import prepare_once

Observer = Callable[[Mapping[str, Any]], None]
"""Is told {"event": "tokenised", "split": ..., "bytes": ..., "seconds": ...} of a store made."""

_DOCUMENTS = 4096  # whose ids are looked at together


def ignore(event: Mapping[str, Any]) -> None:
    """The observer of those who do not want to know."""


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """One split of a corpus in one vocabulary.

    A document of n tokens is stored as n + 2 ids, document start and end included, and has n + 1
    *slots*: slot j predicts id j + 1 from ids 0..j. Slots are what training and evaluation count.

    Attributes:
        ids: all documents' ids, one after another (uint16 or uint32, memory-mapped).
        offsets: where each document starts in `ids`, and the end.
        document_bytes: raw UTF-8 bytes of each document.
        byte_lengths: raw bytes that each vocabulary entry stands for; 0 for document start and end.
        counts: how often each vocabulary entry is a target.
        document_ids: the documents' names.
    """

    ids: np.ndarray
    offsets: Int[np.ndarray, " documents+1"]
    document_bytes: Int[np.ndarray, " documents"]
    byte_lengths: Int[np.ndarray, " vocab"]
    counts: Int[np.ndarray, " vocab"]
    document_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.document_bytes)

    @property
    def vocab_size(self) -> int:
        """Vocabulary entries."""
        return len(self.byte_lengths)

    @property
    def slots(self) -> Int[np.ndarray, " documents"]:
        """Predictions a document: its tokens and its end."""
        return np.diff(self.offsets) - 1

    @property
    def bytes(self) -> int:
        """Raw bytes of text in all."""
        return int(self.document_bytes.sum())

    @property
    def bytes_per_token(self) -> float:
        """Mean raw bytes a slot."""
        return self.bytes / int(self.slots.sum())

    def document(self, index: int) -> Int[np.ndarray, " n+2"]:
        """Ids of one document, start and end included."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


def frequency_deciles(counts: Int[np.ndarray, " vocab"]) -> Int[np.ndarray, " vocab"]:
    """Decile 0..9 of each entry as a target: 0 holds the commonest entries, 9 the rarest.

    Entries are ordered by frequency and cut where their cumulated share of all targets passes a
    tenth, so that each decile holds about a tenth of the text, not of the vocabulary. An entry
    goes where the middle of its share lies; entries never seen belong to decile 9.
    """
    order = np.argsort(-counts, kind="stable")
    share = counts[order] / max(1, counts.sum())
    middle = np.cumsum(share) - share / 2
    deciles = np.empty(len(order), np.int32)
    deciles[order] = np.minimum(9, (middle * 10).astype(np.int32))
    deciles[counts == 0] = 9
    return deciles


def open_store(
    corpus: Corpus, split: str, tokenizer: Tokenizer, cache: Path, observer: Observer = ignore
) -> TokenStore:
    """The token store of a split, made once under `cache`, and made again once it was damaged.

    Raises:
        UserError: naming the first document that the tokenizer does not give back byte for byte.
    """
    key = f"{corpus.provenance.content_hash}-{tokenizer.hash}-{split}"

    def fill(folder: Path) -> None:
        began = time.monotonic()
        size = write_store(folder, corpus.documents(split), tokenizer)
        seconds = time.monotonic() - began
        observer({"event": "tokenised", "split": split, "bytes": size, "seconds": seconds})

    folder = cache / "stores" / key
    return read_store(prepare_once(folder, fill, sound=lambda made: fits_together(made, tokenizer)))


def write_store(
    folder: Path,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    *,
    cores: int | None = None,
) -> int:
    """Tokenise documents into a folder, checking each one to be lossless.

    Args:
        folder: is there, and empty.
        documents: in the order of the store.
        tokenizer: whose ids.
        cores: threads that encode, of which the result does not depend; none: all there are.

    Returns:
        Bytes of text.

    Raises:
        UserError: naming the first document that the tokenizer does not give back byte for byte.
    """
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32
    names: list[str] = []
    lengths, document_bytes = [np.zeros(1, np.int64)], [np.zeros(0, np.int64)]
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    with (folder / "ids.bin").open("wb") as handle:
        for batch in encode_documents(tokenizer, documents, cores=cores):
            batch.ids.astype(dtype).tofile(handle)
            counts += np.bincount(batch.ids, minlength=len(counts))
            lengths.append(batch.lengths)
            document_bytes.append(batch.document_bytes)
            names.extend(batch.names)
    counts[tokenizer.bos_id] -= len(names)  # the start of a document is no target
    sizes = np.concatenate(document_bytes)
    np.save(folder / "offsets.npy", np.cumsum(np.concatenate(lengths)))
    np.save(folder / "document_bytes.npy", sizes)
    np.save(folder / "byte_lengths.npy", np.asarray(tokenizer.byte_lengths, np.int32))
    np.save(folder / "counts.npy", counts)
    (folder / "store.json").write_text(json.dumps({"dtype": np.dtype(dtype).name, "ids": names}))
    return int(sizes.sum())


def fits_together(folder: Path, tokenizer: Tokenizer) -> bool:
    """Whether the files of a store agree with one another and with the tokenizer.

    They hold the text twice over: document starts and ends, how often each entry is a target and
    the bytes of each document all follow from the ids.
    """
    try:
        store = read_store(folder)
        offsets, documents = store.offsets, len(store)
        counts = np.zeros(store.vocab_size, np.int64)
        fits = (
            np.array_equal(store.byte_lengths, tokenizer.byte_lengths)
            and offsets[0] == 0
            and offsets[-1] == len(store.ids)
            and len(offsets) - 1 == len(store.document_ids) == documents
        )
        for first in range(0, documents, _DOCUMENTS) if fits else ():
            edges = offsets[first : first + _DOCUMENTS + 1]
            ids, (starts, ends) = (
                store.ids[edges[0] : edges[-1]],
                (edges[:-1], edges[1:]) - edges[0],
            )
            read = np.concatenate([[0], np.cumsum(store.byte_lengths[ids], dtype=np.int64)])
            sizes = store.document_bytes[first : first + _DOCUMENTS]
            fits = (
                fits
                and np.all(ids[starts] == tokenizer.bos_id)
                and np.all(ids[ends - 1] == tokenizer.eos_id)
                and np.array_equal(read[ends] - read[starts], sizes)
            )
            counts += np.bincount(ids, minlength=len(counts))
        counts[tokenizer.bos_id] -= documents
        return bool(fits and np.array_equal(counts, store.counts))
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError):
        return False


def read_store(folder: Path) -> TokenStore:
    """Open a store written by `write_store`."""
    meta = read_json(folder / "store.json")
    return TokenStore(
        ids=np.memmap(folder / "ids.bin", dtype=meta["dtype"], mode="r"),
        offsets=np.load(folder / "offsets.npy"),
        document_bytes=np.load(folder / "document_bytes.npy"),
        byte_lengths=np.load(folder / "byte_lengths.npy"),
        counts=np.load(folder / "counts.npy"),
        document_ids=tuple(meta["ids"]),
    )
