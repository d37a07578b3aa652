"""A beam over all tokenisations: next-byte distributions of many texts side by side.

A hypothesis is a token sequence whose bytes are a beginning of the text so far, the trie node that
the remaining bytes lead to, and a weight: its share of the text's probability. The next token is
known to lie strictly below the node, so that hypotheses exclude each other. Reading a byte moves
each one to a child and multiplies its weight by mass(child) / mass(below the node); where tokens
end, it splits into "goes on below" and, for each such token, "this token, at the root again".
(Vieira et al. 2024, From Language Models over Tokens to Language Models over Characters.)

No two hypotheses of a text have the same tokens, so that none have to be merged.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.data.corpora.documents import END, SYMBOLS
from calibtrain.generation.byte_trie import ByteTrie

_LEAST = float(np.finfo(np.float32).tiny)


STAY = -2
"""For a text that does not go on in this step."""


class Extensions(NamedTuple):
    """Hypotheses that a token ended: their model states are still to be made.

    Attributes:
        sources: state row to go on from.
        targets: state row to put the new state into. A target may be the source of another one.
        tokens: the token to read.
    """

    sources: Int[np.ndarray, " new"]
    targets: Int[np.ndarray, " new"]
    tokens: Int[np.ndarray, " new"]


class Copies(NamedTuple):
    """Hypotheses that go on in another lane: their model states are to be copied there.

    To be done before the extensions, which may put others in the place of the sources.

    Attributes:
        sources: state row.
        targets: state row to put the same into.
    """

    sources: Int[np.ndarray, " copies"]
    targets: Int[np.ndarray, " copies"]


class Reading(NamedTuple):
    """What `ByteBeam.read` did.

    Attributes:
        new: states that are wanted next.
        copies: states that are wanted in another lane.
        kept: share of each lane's weight that was kept.
    """

    new: Extensions
    copies: Copies
    kept: Float[np.ndarray, " lanes"]


@dataclasses.dataclass(frozen=True)
class _Moves:
    """Every step from a hypothesis to a child of its node."""

    hypothesis: Int[np.ndarray, " moves"]
    child: Int[np.ndarray, " moves"]
    below: Float[np.ndarray, " moves"]
    scale: Float[np.ndarray, " hypotheses"]


class ByteBeam:
    """Hypotheses of several texts ("lanes"), each with a state row lane * slots + slot.

    Keeps the `width` best hypotheses a lane. One that a token ended costs a pass of the model, and
    is left out below `ratio` times the best; one that goes on inside a token costs nothing, and
    without it the bytes that only it foresees would look impossible. In any case the best of those
    at the root is kept, for which every byte is possible: so no text is ever impossible that the
    vocabulary can spell.
    """

    def __init__(self, trie: ByteTrie, lanes: int, width: int, ratio: float):
        self.trie, self.lanes, self.width, self.ratio = trie, lanes, width, ratio
        self.slots = width + 1
        self._probabilities = np.zeros((lanes * self.slots + 1, len(trie.order)))
        self._row = self._node = np.zeros(0, np.int64)
        self._weight = np.zeros(0)
        self._moves: _Moves | None = None

    @property
    def alive(self) -> int:
        """Hypotheses in all."""
        return len(self._row)

    def start(self, lanes: Int[np.ndarray, " started"]) -> Int[np.ndarray, " started"]:
        """Begin texts, each with one hypothesis at the root; the state rows that they need."""
        rows = np.sort(lanes)[::-1] * self.slots
        self._row, self._node = rows, np.zeros(len(rows), np.int64)
        self._weight = np.ones(len(rows))
        return lanes * self.slots

    def set_probabilities(
        self, rows: Int[np.ndarray, " rows"], probabilities: Float[np.ndarray, "rows tokens"]
    ) -> None:
        """Say how probable each token is in these states, in the order of the trie."""
        # What float32 cannot hold is not impossible.
        self._probabilities[rows] = np.maximum(probabilities, _LEAST)

    def predict(self) -> Float[np.ndarray, "lanes 257"]:
        """Probability of each next byte, and of the end; 0 throughout for a lane without text."""
        trie = self.trie
        counts = trie.children[self._node]
        hypothesis = np.repeat(np.arange(len(counts)), counts)
        child = _ranges(trie.first_child[self._node], counts)
        own, below = self._masses(counts, child)
        total = np.bincount(hypothesis, own + below, minlength=len(counts))
        scale = self._weight / total
        below *= scale[hypothesis]
        own *= scale[hypothesis]
        self._moves = _Moves(hypothesis, child, below, scale)
        lane = self._row // self.slots
        cell = lane[hypothesis] * SYMBOLS + trie.symbol[child]
        return np.bincount(cell, own + below, minlength=self.lanes * SYMBOLS).reshape(-1, SYMBOLS)

    def _masses(
        self, counts: Int[np.ndarray, " hypotheses"], child: Int[np.ndarray, " moves"]
    ) -> tuple[Float[np.ndarray, " moves"], Float[np.ndarray, " moves"]]:
        """Mass of the tokens that end at each child, and of those that go on below it.

        Sums of slices, not differences of running sums, so that the smallest keep their digits.
        """
        trie, tokens = self.trie, self._probabilities.shape[1]
        # A hypothesis's children lie side by side: their edges, and the end of the last. Rows
        # descend, so that nothing is summed between one hypothesis and the next.
        edges = np.empty(2 * len(child) + len(counts), np.int64)
        place = 2 * np.arange(len(child)) + np.repeat(np.arange(len(counts)), counts)
        base = np.repeat(self._row * tokens, counts)
        edges[place] = base + trie.start[child]
        edges[place + 1] = base + trie.own_end[child]
        last = 2 * np.cumsum(counts) + np.arange(len(counts))
        edges[last] = self._row * tokens + trie.end[self._node]
        sums = np.add.reduceat(self._probabilities.reshape(-1), edges) if len(edges) else edges
        # `reduceat` gives an element for an empty slice
        own = np.where(trie.start[child] < trie.own_end[child], sums[place], 0.0)
        below = np.where(trie.own_end[child] < trie.end[child], sums[place + 1], 0.0)
        return own, below

    def read(
        self,
        symbols: Int[np.ndarray, " lanes"],
        origin: Int[np.ndarray, " lanes"] | None = None,
    ) -> Reading:
        """Go on with the next byte of each text, of which `predict` was asked.

        Args:
            symbols: the bytes; -1, and the end of text, for a lane that has no further text;
                `STAY` for one that waits.
            origin: the lane whose text each lane goes on from; default: its own. From each, one
                other lane may; what that one held is dropped.
        """
        trie, moves = self.trie, self._moves
        assert moves is not None, "predict first"
        lane = self._row // self.slots
        waiting = symbols[lane] == STAY
        old = self._row[waiting], self._node[waiting], self._weight[waiting]

        wanted = np.where(symbols == END, -1, symbols)
        own = np.arange(self.lanes)
        guests = own[:0] if origin is None else np.flatnonzero(origin != own)
        into = lane[moves.hypothesis]
        move = np.flatnonzero(trie.symbol[moves.child] == _with(wanted, guests, -1)[into])
        into = into[move]
        if origin is not None and len(guests):
            guest = _with(np.full(self.lanes, -1), origin[guests], guests)[lane[moves.hypothesis]]
            fork = np.flatnonzero((guest >= 0) & (trie.symbol[moves.child] == wanted[guest]))
            move, into = np.append(move, fork), np.append(into, guest[fork])
        hypothesis, child = moves.hypothesis[move], moves.child[move]
        # those that go on below, then those that a token ends
        on = moves.below[move] > 0
        ending = trie.own_end[child] - trie.start[child]
        parent = np.repeat(hypothesis, ending)
        token = _ranges(trie.start[child], ending)
        ended = moves.scale[parent] * self._probabilities[self._row[parent], token]
        found = np.concatenate([hypothesis[on], parent])
        into = np.concatenate([into[on], np.repeat(into, ending)])
        node = np.concatenate([child[on], np.zeros(len(token), np.int64)])
        token = np.concatenate([np.full(on.sum(), -1), token])
        weight = np.concatenate([moves.below[move][on], ended])

        order = np.lexsort((-weight, into))
        into, weight = into[order], weight[order]
        total = np.bincount(into, weight, minlength=self.lanes)
        kept = self._choose(into, weight, token[order] >= 0)
        order, into, weight = order[kept], into[kept], weight[kept]
        found, node, token = found[order], node[order], token[order]
        rest = np.bincount(into, weight, minlength=self.lanes)
        weight /= rest[into]

        source = self._row[found]
        row = self._place(source, into, (token >= 0) | (into != lane[found]))
        new, copied = token >= 0, (token < 0) & (into != lane[found])
        extensions = Extensions(source[new], row[new], trie.order[token[new]])
        copies = Copies(source[copied], row[copied])
        self._probabilities[copies.targets] = self._probabilities[copies.sources]
        row, node, weight = (
            np.concatenate(both) for both in zip((row, node, weight), old, strict=True)
        )
        descending = np.argsort(-row)
        self._row, self._node = row[descending], node[descending]
        self._weight, self._moves = weight[descending], None
        kept_share = np.divide(rest, total, out=np.ones(self.lanes), where=total > 0)
        return Reading(extensions, copies, kept_share)

    def _choose(
        self,
        lane: Int[np.ndarray, " found"],
        weight: Float[np.ndarray, " found"],
        at_root: Bool[np.ndarray, " found"],
    ) -> Bool[np.ndarray, " found"]:
        """Which to keep of hypotheses that are sorted by lane, the best first."""
        _, first, inverse = np.unique(lane, return_index=True, return_inverse=True)
        rank = np.arange(len(lane)) - first[inverse]
        kept = rank < self.width
        kept &= ~at_root | (weight >= self.ratio * weight[first[inverse]])
        at = np.flatnonzero(at_root)
        _, first_at_root = np.unique(lane[at], return_index=True)
        kept[at[first_at_root]] = True
        return kept

    def _place(
        self,
        source: Int[np.ndarray, " kept"],
        lane: Int[np.ndarray, " kept"],
        new: Bool[np.ndarray, " kept"],
    ) -> Int[np.ndarray, " kept"]:
        """A state row for each: its own for one that goes on, a free one of the lane for a new."""
        row = source.copy()
        taken = np.zeros((self.lanes, self.slots), bool)
        taken.reshape(-1)[row[~new]] = True
        free = np.argsort(taken, axis=1, kind="stable")
        lane = lane[new]
        _, first, inverse = np.unique(lane, return_index=True, return_inverse=True)
        row[new] = lane * self.slots + free[lane, np.arange(len(lane)) - first[inverse]]
        return row


def _with(
    values: Int[np.ndarray, " values"],
    index: Int[np.ndarray, " some"],
    new: Int[np.ndarray, " some"] | int,
) -> Int[np.ndarray, " values"]:
    """The values with others in some places."""
    changed = values.copy()
    changed[index] = new
    return changed


def _ranges(
    first: Int[np.ndarray, " ranges"], counts: Int[np.ndarray, " ranges"]
) -> Int[np.ndarray, " all"]:
    """first .. first + count of each, one after another."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + counts, counts)
