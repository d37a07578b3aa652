"""Evaluation windows: every byte of the chosen documents is scored exactly once, in any vocabulary.

A document longer than the context is read by windows that overlap by half, and only what the
window before did not score counts. Every slot is therefore predicted from at least half a context
wherever the document has one. Short windows share a row; attention keeps them apart.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.batches.stream import document_order
from calibtrain.data.batches.token_store import TokenStore


class WindowBatch(NamedTuple):
    """Rows of windows; the shapes are the same whatever the rows hold.

    Attributes:
        tokens: input ids.
        labels: the id that follows each input.
        segments: which window of its row a slot belongs to; -1 where there is none.
        weights: 1 where the slot is scored here, else 0.
        documents: index of the document in the store; -1 where there is none.
        before: bytes of the document before what the slot predicts.
    """

    tokens: Int[Any, "rows context"]
    labels: Int[Any, "rows context"]
    segments: Int[Any, "rows context"]
    weights: Float[Any, "rows context"]
    documents: Int[Any, "rows context"]
    before: Int[Any, "rows context"]


@dataclasses.dataclass(frozen=True)
class Window:
    """Slots start..end of a document; those from `scored_from` on are scored."""

    document: int
    start: int
    end: int
    scored_from: int


def plan_windows(slots: int, context: int, document: int = 0, first: int = 0) -> list[Window]:
    """Returns the windows over one document of so many slots, which score from slot `first` on."""
    stride = max(1, context // 2)
    start = max(0, first - (context - stride))
    windows = [Window(document, start, min(slots, start + context), first)]
    while windows[-1].end < slots:
        done = windows[-1].end
        end = min(slots, done + stride)
        windows.append(Window(document, end - context, end, done))
    return windows


def choose_documents(
    document_bytes: Int[np.ndarray, " documents"], limit: int | None
) -> Int[np.ndarray, " chosen"]:
    """Returns whole documents of about `limit` bytes in all, the same for every vocabulary.

    A limit of None means all documents.

    They are drawn evenly over the split, so that a limited evaluation is a fair sample of it.
    """
    if limit is None or limit >= document_bytes.sum():
        return np.arange(len(document_bytes))
    order = document_order(len(document_bytes), seed=0, epoch=0)
    enough = int(np.searchsorted(np.cumsum(document_bytes[order]), limit, side="left")) + 1
    return np.sort(order[:enough])


class EvaluationWindows:
    """Batches of windows over documents of a store, by index."""

    def __init__(self, store: TokenStore, *, rows: int, context: int, limit: int | None = None):
        self.store = store
        self.rows = rows
        self.context = context
        self.documents = choose_documents(store.document_bytes, limit)
        self._packed = self._pack()

    @property
    def bytes(self) -> int:
        """Bytes of text that are scored."""
        return int(self.store.document_bytes[self.documents].sum())

    def _pack(self) -> list[list[Window]]:
        """Returns the windows in order, as many in a row as fit."""
        packed: list[list[Window]] = []
        room = 0
        slots = self.store.slots
        for document in self.documents:
            for window in plan_windows(int(slots[document]), self.context, int(document)):
                length = window.end - window.start
                if length > room:
                    packed.append([])
                    room = self.context
                packed[-1].append(window)
                room -= length
        return packed

    def __len__(self) -> int:
        return -(-len(self._packed) // self.rows)

    def __getitem__(self, index: int) -> WindowBatch:
        shape = (self.rows, self.context)
        tokens, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        segments, documents = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
        weights, before = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        for row, windows in enumerate(self._packed[index * self.rows : (index + 1) * self.rows]):
            place = 0
            for segment, window in enumerate(windows):
                ids = self.store.document(window.document)
                to = place + window.end - window.start
                tokens[row, place:to] = ids[window.start : window.end]
                labels[row, place:to] = ids[window.start + 1 : window.end + 1]
                segments[row, place:to] = segment
                documents[row, place:to] = window.document
                lengths = self.store.byte_lengths[ids[: window.end]]  # of the ids read so far
                before[row, place:to] = np.cumsum(lengths)[window.start :]
                weights[row, to - (window.end - window.scored_from) : to] = 1.0
                place = to
        return WindowBatch(tokens, labels, segments, weights, documents, before)
