"""One split of a corpus as token ids: a memory-mapped file, and the exact bytes behind each id."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Int

from calibtrain.storage.json_text import read_json


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """One split of a corpus in one vocabulary.

    A document of n tokens is stored as n + 2 ids, document start and end included, and has n + 1
    *slots*: slot j predicts id j + 1 from ids 0..j. Slots are what training and evaluation count.

    Attributes:
        ids: all documents' ids, one after another (uint16 or uint32, memory-mapped).
        offsets: where each document starts in `ids`, and the end.
        document_bytes: number of UTF-8 bytes of each document.
        byte_lengths: number of bytes that each vocabulary entry stands for; 0 for document start
            and end.
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
        """Number of vocabulary entries."""
        return len(self.byte_lengths)

    @property
    def slots(self) -> Int[np.ndarray, " documents"]:
        """Number of predictions in each document: its tokens and its end."""
        return np.diff(self.offsets) - 1

    @property
    def bytes(self) -> int:
        """Number of bytes of text in all."""
        return int(self.document_bytes.sum())

    @property
    def bytes_per_token(self) -> float:
        """Mean raw bytes per slot."""
        return self.bytes / int(self.slots.sum())

    def document(self, index: int) -> Int[np.ndarray, " n+2"]:
        """Returns the ids of one document, start and end included."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


def frequency_deciles(counts: Int[np.ndarray, " vocab"]) -> Int[np.ndarray, " vocab"]:
    """Returns the decile 0..9 of each entry: 0 holds the commonest targets, 9 the rarest.

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


def read_store(folder: Path) -> TokenStore:
    """Opens a store written by `store.write_store`."""
    meta = read_json(folder / "store.json")
    return TokenStore(
        ids=np.memmap(folder / "ids.bin", dtype=meta["dtype"], mode="r"),
        offsets=np.load(folder / "offsets.npy"),
        document_bytes=np.load(folder / "document_bytes.npy"),
        byte_lengths=np.load(folder / "byte_lengths.npy"),
        counts=np.load(folder / "counts.npy"),
        document_ids=tuple(meta["ids"]),
    )
