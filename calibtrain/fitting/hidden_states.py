"""The last hidden states of a text, which a frozen model computes once and heads are fitted on.

Rows are windows of text as an evaluation reads them; a token counts in one window only. The states
are an array in memory, a file mapped into memory, or are computed again each time they are read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int

TOKENS_AT_ONCE = 2**14
"""Number of tokens in a batch when the whole text is read."""
_SIZES = 8
"""Number of sizes to which the tokens of a batch are padded: at most so many programs compile."""


class Rows(Protocol):
    """Hidden states by row: an array, or an object that computes them."""

    def __getitem__(self, rows: Any) -> Any:
        """Returns [rows, time, width] for an array of row indices."""


class HiddenBatch(NamedTuple):
    """Some rows, and their tokens that count, padded to one of a few sizes.

    Attributes:
        hidden: hidden states of all tokens of the rows.
        segments: which window of its row each of these tokens belongs to.
        index: where among them the tokens that count are, rows one after another.
        labels: the target of each token that counts.
        weights: 1 for a token that counts, 0 for padding.
        documents: the document of each token that counts.
    """

    hidden: Float[Any, "rows time width"]
    segments: Int[Any, "rows time"]
    index: Int[Any, " tokens"]
    labels: Int[Any, " tokens"]
    weights: Float[Any, " tokens"]
    documents: Int[Any, " tokens"]


class TokenBatch(NamedTuple):
    """Tokens that count, without those around them; the last batch is padded with weight 0."""

    hidden: Float[Any, "tokens width"]
    labels: Int[Any, " tokens"]
    weights: Float[Any, " tokens"]


@dataclasses.dataclass(frozen=True)
class HiddenStates:
    """A text as a frozen model sees it.

    Attributes:
        hidden: the last hidden state of each token.
        labels: the token that follows each.
        segments: which window of its row a token belongs to.
        counted: whether a token counts here.
        documents: the document that each token belongs to.
    """

    hidden: Rows
    labels: Int[np.ndarray, "rows time"]
    segments: Int[np.ndarray, "rows time"]
    counted: Bool[np.ndarray, "rows time"]
    documents: Int[np.ndarray, "rows time"]

    @property
    def tokens(self) -> int:
        """The number of tokens that count."""
        return int(self.counted.sum())

    def only(self, documents: Int[np.ndarray, " some"]) -> HiddenStates:
        """Returns the same text, in which only the tokens of some documents count."""
        member = np.isin(self.documents, documents)
        return dataclasses.replace(self, counted=self.counted & member)

    def rows_that_count(self, rows: Int[np.ndarray, " some"] | None = None) -> np.ndarray:
        """Returns the indices of the rows, of all (None) or of some, with a token that counts."""
        chosen = np.arange(len(self.labels)) if rows is None else rows
        return chosen[self.counted[chosen].any(axis=1)]

    def batch(self, rows: Int[np.ndarray, " some"], size: int | None = None) -> HiddenBatch:
        """Returns some rows as one batch.

        Args:
            rows: their indices.
            size: number of tokens in the batch; those beyond are left out. None takes all tokens
                that count, padded.
        """
        counted = self.counted[rows]
        index = np.flatnonzero(counted.reshape(-1))
        if size is None:
            step = max(1, -(-counted.size // _SIZES))
            size = max(step, -(-len(index) // step) * step)
        index = index[:size]
        padded = np.zeros(size, np.int32)
        padded[: len(index)] = index

        def of(values: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(values[rows].reshape(-1)[padded])

        return HiddenBatch(
            hidden=np.asarray(self.hidden[rows]),
            segments=self.segments[rows],
            index=padded,
            labels=of(self.labels),
            weights=(np.arange(size) < len(index)).astype(np.float32),
            documents=of(self.documents),
        )

    def batches(self, rows: Int[np.ndarray, " some"] | None = None) -> Iterator[HiddenBatch]:
        """Yields all rows with a token that counts (None), or those of some rows.

        The last batch is filled up with rows that it has already, whose tokens weigh 0 there.
        """
        chosen = self.rows_that_count(rows)
        at_once = max(1, TOKENS_AT_ONCE // self.labels.shape[1])
        for first in range(0, len(chosen), at_once):
            some = chosen[first : first + at_once]
            if len(some) == at_once or len(chosen) < at_once:
                yield self.batch(some)
                continue
            batch = self.batch(np.resize(some, at_once))
            again = batch.index >= some.size * self.labels.shape[1]
            yield batch._replace(weights=np.where(again, 0, batch.weights).astype(np.float32))

    def token_batches(
        self, size: int, rows: Int[np.ndarray, " some"] | None = None
    ) -> Iterator[TokenBatch]:
        """Yields the tokens that count, `size` at a time, of all rows (None) or of some."""
        chosen = self.rows_that_count(rows)
        at_once = max(1, size // self.labels.shape[1])
        hidden: list[Any] = []
        labels: list[Any] = []
        waiting = 0
        for first in range(0, len(chosen), at_once):
            some = chosen[first : first + at_once]
            counted = self.counted[some]
            states = np.asarray(self.hidden[some])
            whole = counted.all()
            hidden.append(states.reshape(-1, states.shape[-1]) if whole else states[counted])
            labels.append(self.labels[some][counted])
            waiting += len(labels[-1])
            while waiting >= size:
                all_hidden, all_labels = _joined(hidden), _joined(labels)
                yield TokenBatch(all_hidden[:size], all_labels[:size], np.ones(size, np.float32))
                hidden, labels = [all_hidden[size:]], [all_labels[size:]]
                waiting -= size
        if waiting:
            rest = [(0, size - waiting)]
            yield TokenBatch(
                np.pad(_joined(hidden), [*rest, (0, 0)]),
                np.pad(_joined(labels), rest),
                (np.arange(size) < waiting).astype(np.float32),
            )


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
