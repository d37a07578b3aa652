"""What a head is fitted on: the last hidden states of text, which the frozen model gives once.

Rows are windows of text as an evaluation reads them; a token counts in one window only. Hidden
states come from memory, from a file that is mapped into it, or are computed anew when asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

TOKENS_AT_ONCE = 2**14
"""Of a block when passing over the whole text."""
_SIZES = 8
"""In how many steps the tokens of a block are padded to their size: so many programs at most."""


class Rows(Protocol):
    """Hidden states by row: an array, or what computes them."""

    def __getitem__(self, rows: Any) -> Any:
        """[rows, time, width] of an array of row numbers."""


class Block(NamedTuple):
    """Some rows, and those of their tokens that count, padded to one of a few sizes.

    Attributes:
        hidden: of every token of the rows.
        segments: likewise.
        index: of the tokens that count among all of the rows'.
        labels: of those.
        weights: 1, or 0 where there is only padding.
        documents: of those.
    """

    hidden: Float[Any, "rows time width"]
    segments: Int[Any, "rows time"]
    index: Int[Any, " tokens"]
    labels: Int[Any, " tokens"]
    weights: Float[Any, " tokens"]
    documents: Int[Any, " tokens"]


@dataclasses.dataclass(frozen=True)
class States:
    """Windows of text as a frozen model sees them.

    Attributes:
        hidden: last hidden states of a row's tokens.
        labels: the token that follows each.
        segments: which window of its row a token belongs to.
        counted: whether a token counts here.
        documents: of which document each is.
    """

    hidden: Rows
    labels: Int[np.ndarray, "rows time"]
    segments: Int[np.ndarray, "rows time"]
    counted: np.ndarray
    documents: Int[np.ndarray, "rows time"]

    @property
    def tokens(self) -> int:
        """Tokens that count."""
        return int(self.counted.sum())

    def block(self, rows: Int[np.ndarray, " some"], size: int | None = None) -> Block:
        """Some rows.

        Args:
            rows: their numbers.
            size: tokens of the block; those beyond are left out. None: all, padded.
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

        return Block(
            hidden=np.asarray(self.hidden[rows]),
            segments=self.segments[rows],
            index=padded,
            labels=of(self.labels),
            weights=(np.arange(size) < len(index)).astype(np.float32),
            documents=of(self.documents),
        )

    def blocks(self, rows: Int[np.ndarray, " some"] | None = None) -> Iterator[Block]:
        """All rows that hold a token that counts, or those of some, a few at a time.

        The last block is filled up with a row whose tokens do not count again.
        """
        chosen = np.arange(len(self.labels)) if rows is None else rows
        chosen = chosen[self.counted[chosen].any(axis=1)]
        at_once = max(1, TOKENS_AT_ONCE // self.labels.shape[1])
        for first in range(0, len(chosen), at_once):
            some = chosen[first : first + at_once]
            if len(some) == at_once or len(chosen) < at_once:
                yield self.block(some)
                continue
            block = self.block(np.resize(some, at_once))
            again = block.index >= some.size * self.labels.shape[1]
            yield block._replace(weights=np.where(again, 0, block.weights).astype(np.float32))

    def tokens_by_themselves(
        self, size: int, rows: Int[np.ndarray, " some"] | None = None
    ) -> Iterator[tuple[Any, Any, Any]]:
        """The tokens that count, whatever stands around them, so many at a time.

        Args:
            size: of what is given; the last is padded.
            rows: to read them from; none: all.

        Yields:
            hidden [size, width], labels [size], weights [size].
        """
        chosen = np.arange(len(self.labels)) if rows is None else rows
        chosen = chosen[self.counted[chosen].any(axis=1)]
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
                yield all_hidden[:size], all_labels[:size], np.ones(size, np.float32)
                hidden, labels = [all_hidden[size:]], [all_labels[size:]]
                waiting -= size
        if waiting:
            rest = [(0, size - waiting)]
            weights = (np.arange(size) < waiting).astype(np.float32)
            yield (
                np.pad(_joined(hidden), [*rest, (0, 0)]),
                np.pad(_joined(labels), rest),
                weights,
            )

    def only(self, documents: Int[np.ndarray, " some"]) -> States:
        """The same text, of which only the tokens of some documents count."""
        member = np.isin(self.documents, documents)
        return dataclasses.replace(self, counted=self.counted & member)


def _joined(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
