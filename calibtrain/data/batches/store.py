"""Tokenises the documents of a split once, and checks what is kept of them."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from calibtrain.data.batches.token_store import TokenStore, frequency_deciles, read_store
from calibtrain.data.corpora.corpus import Corpus, Document
from calibtrain.data.tokenizers.encoder import encode_documents
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.process.phases import Phase
from calibtrain.storage.prepared import prepare_once

__all__ = [
    "Observer",
    "TokenStore",
    "fits_together",
    "frequency_deciles",
    "ignore",
    "open_store",
    "read_store",
    "write_store",
]

Observer = Callable[[Mapping[str, Any]], None]
"""Gets {"event": "tokenised", "split": ..., "bytes": ..., "seconds": ...} for every new store."""

_DOCUMENTS = 4096  # documents whose ids are checked together


def ignore(event: Mapping[str, Any]) -> None:
    """Does nothing with an event."""


def open_store(
    corpus: Corpus, split: str, tokenizer: Tokenizer, cache: Path, observer: Observer = ignore
) -> TokenStore:
    """Returns the token store of a split; it is made once under `cache`, and again if damaged.

    Raises:
        UserError: where the tokenizer does not give a document back byte for byte; it names the
            first one.
    """
    key = f"{corpus.provenance.content_hash}-{tokenizer.hash}-{split}"

    def fill(folder: Path) -> None:
        began = time.monotonic()
        texts = corpus.documents(split)
        phase = Phase(f"tokenising, {split} split", corpus.provenance.splits[split].bytes)
        documents = phase.of(texts, _size)
        size = write_store(folder, documents, tokenizer)
        seconds = time.monotonic() - began
        observer({"event": "tokenised", "split": split, "bytes": size, "seconds": seconds})

    folder = cache / "stores" / key
    return read_store(prepare_once(folder, fill, sound=lambda made: fits_together(made, tokenizer)))


def _size(document: Document) -> int:
    return len(document.text.encode(errors="replace"))


def write_store(
    folder: Path,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    *,
    cores: int | None = None,
) -> int:
    """Tokenises documents into a folder, and checks that each one comes back byte for byte.

    Args:
        folder: an empty folder.
        documents: the documents, in the order of the store.
        tokenizer: the tokenizer that gives the ids.
        cores: threads that encode; the result does not depend on them. None means all cores.

    Returns:
        Bytes of text.

    Raises:
        UserError: where the tokenizer does not give a document back byte for byte; it names the
            first one.
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
    counts[tokenizer.bos_id] -= len(names)  # the start of a document is never a target
    sizes = np.concatenate(document_bytes)
    np.save(folder / "offsets.npy", np.cumsum(np.concatenate(lengths)))
    np.save(folder / "document_bytes.npy", sizes)
    np.save(folder / "byte_lengths.npy", np.asarray(tokenizer.byte_lengths, np.int32))
    np.save(folder / "counts.npy", counts)
    (folder / "store.json").write_text(json.dumps({"dtype": np.dtype(dtype).name, "ids": names}))
    return int(sizes.sum())


def fits_together(folder: Path, tokenizer: Tokenizer) -> bool:
    """Returns whether the files of a store agree with each other and with the tokenizer.

    Document starts and ends, how often each entry is a target, and the bytes of each document all
    follow from the ids.
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
