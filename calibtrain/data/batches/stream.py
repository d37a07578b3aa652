"""The batch at a step: the training text is one endless stream of slots, fixed by the seed.

In every epoch the documents come in a new order that depends on (seed, epoch) and on nothing else,
so that two vocabularies read the same text in the same order. Step s is the stream's s-th stretch
of rows x context slots.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:  # benchmarks run without these
    from jaxtyping import Float, Int

    from calibtrain.data.batches.token_store import TokenStore


class Batch(NamedTuple):
    """Rows of packed documents.

    Attributes:
        tokens: input ids.
        labels: the id that follows each input.
        segments: number of the document that a slot belongs to; attention stays within it.
        weights: 1 where the slot counts, 0 past the end of the budget.
        reference: log-probability of a row's answer under the model before fine-tuning, in nats;
            only for pairs of answers.
    """

    tokens: Int[Any, "rows context"]
    labels: Int[Any, "rows context"]
    segments: Int[Any, "rows context"]
    weights: Float[Any, "rows context"]
    reference: Float[Any, " rows"] | None = None


class TextStream:
    """The endless stream of slots of a store, for one seed."""

    def __init__(self, store: TokenStore, seed: int):
        self.store = store
        self.seed = seed
        self.slots_per_epoch = int(store.slots.sum())
        self._epoch = functools.lru_cache(maxsize=4)(self._lay_out_epoch)

    def _lay_out_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the documents in this epoch's order; slots and bytes before each, and in all."""
        order = document_order(len(self.store), self.seed, epoch)
        slots = np.concatenate([[0], np.cumsum(self.store.slots[order])])
        raw = np.concatenate([[0], np.cumsum(self.store.document_bytes[order])])
        return order, slots, raw

    def read(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns inputs, labels and document numbers of slots start .. start + count."""
        tokens = np.empty(count, np.int32)
        labels = np.empty(count, np.int32)
        segments = np.empty(count, np.int32)
        done = documents = 0
        while done < count:
            epoch, place = divmod(start + done, self.slots_per_epoch)
            order, slots, _ = self._epoch(epoch)
            index = int(np.searchsorted(slots, place, side="right")) - 1
            inside = place - slots[index]
            ids = self.store.document(int(order[index]))
            take = min(count - done, len(ids) - 1 - int(inside))
            tokens[done : done + take] = ids[inside : inside + take]
            labels[done : done + take] = ids[inside + 1 : inside + 1 + take]
            segments[done : done + take] = documents
            documents += 1
            done += take
        return tokens, labels, segments

    def bytes_before(self, slot: int) -> int:
        """Returns how many bytes of text the first `slot` slots predict."""
        epoch, place = divmod(slot, self.slots_per_epoch)
        order, slots, raw = self._epoch(epoch)
        index = int(np.searchsorted(slots, place, side="right")) - 1
        inside = int(place - slots[index])
        ids = self.store.document(int(order[index])) if inside else np.zeros(1, np.int32)
        partial = int(self.store.byte_lengths[ids[1 : 1 + inside]].sum())
        return epoch * self.store.bytes + int(raw[index]) + partial

    def slots_for_bytes(self, amount: int) -> int:
        """Returns the fewest slots that predict at least `amount` bytes of text."""
        epoch, rest = divmod(amount, self.store.bytes)
        if rest == 0:
            return epoch * self.slots_per_epoch
        order, slots, raw = self._epoch(epoch)
        index = int(np.searchsorted(raw, rest, side="left")) - 1
        ids = self.store.document(int(order[index]))
        seen = np.cumsum(self.store.byte_lengths[ids[1:]])
        inside = int(np.searchsorted(seen, rest - raw[index], side="left")) + 1
        return epoch * self.slots_per_epoch + int(slots[index]) + inside


def document_order(documents: int, seed: int, epoch: int) -> Int[np.ndarray, " documents"]:
    """Returns a permutation that depends on (documents, seed, epoch) alone.

    Philox's raw stream is guaranteed not to change between NumPy versions; its shuffles are not.
    """
    draw = np.random.Philox(key=[seed, epoch]).random_raw(documents)
    return np.argsort(draw, kind="stable")


class TrainingBatches:
    """The batches of a run, by step; or some rows of each."""

    def __init__(
        self,
        stream: TextStream,
        *,
        rows: int,
        context: int,
        total_slots: int,
        part: slice | None = None,
    ):
        """Args:
        stream: the training text.
        rows: of the whole batch.
        context: slots per row.
        total_slots: how many are read in all; those beyond have weight 0.
        part: the rows that are read here; by default all.
        """
        self.stream = stream
        self.rows = rows
        self.context = context
        self.total_slots = total_slots
        self.slots_per_step = rows * context
        self.part = part or slice(0, rows)

    def of_rows(self, part: slice) -> "TrainingBatches":
        """Returns the batches reduced to some of their rows, which one process reads."""
        return TrainingBatches(
            self.stream,
            rows=self.rows,
            context=self.context,
            total_slots=self.total_slots,
            part=part,
        )

    @property
    def steps_per_epoch(self) -> float:
        """How many steps one pass over the text takes."""
        return self.stream.slots_per_epoch / self.slots_per_step

    def progress(self, step: int) -> tuple[int, int]:
        """Returns tokens and bytes of text trained on after so many steps."""
        slots = min(step * self.slots_per_step, self.total_slots)
        return slots, self.stream.bytes_before(slots)

    def __len__(self) -> int:
        """How many steps it takes to read `total_slots` slots."""
        return -(-self.total_slots // self.slots_per_step)

    def __getitem__(self, step: int) -> Batch:
        rows = self.part.stop - self.part.start
        start = int(step) * self.slots_per_step + self.part.start * self.context
        count = rows * self.context
        arrays = self.stream.read(start, count)
        weights = (np.arange(start, start + count) < self.total_slots).astype(np.float32)
        return Batch(*(array.reshape(rows, self.context) for array in (*arrays, weights)))

    def iterate(self, start: int) -> Any:
        """Returns an iterator over the batches from a step on, which a few threads read ahead."""
        import grain  # imported here: steps and benchmarks use Batch without it

        dataset = grain.MapDataset.source(self)[start:]
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)
        return iter(dataset.to_iter_dataset(options))
