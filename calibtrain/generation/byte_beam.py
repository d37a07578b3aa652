"""A beam over all tokenisations of several texts side by side; it knows no model.

A hypothesis is a token sequence whose bytes are a beginning of the text so far, the trie node that
the remaining bytes lead to, and a weight: its share of the text's probability. The next token is
known to lie strictly below the node, so that hypotheses exclude each other. Reading a byte moves
each one to a child and multiplies its weight by mass(child) / mass(below the node). Where tokens
end, it splits into "goes on below" and, for each such token, "this token, at the root again".

No two hypotheses of a text have the same tokens, so that none have to be merged.

References:
    Vieira et al. (2024), From Language Models over Tokens to Language Models over Characters.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.data.corpora.documents import END, SYMBOLS
from calibtrain.generation.byte_trie import ByteTrie

_SMALLEST = float(np.finfo(np.float32).tiny)

STOP = -1
"""Read by a lane whose text is over: its hypotheses are dropped."""
STAY = -2
"""Read by a lane whose text waits in this step."""


class Extensions(NamedTuple):
    """Hypotheses that a token ended; the caller makes their model states.

    Attributes:
        sources: row of the state that the token is read after.
        targets: row that the new state is put into. A target may be the source of another one.
        tokens: the token to read.
    """

    sources: Int[np.ndarray, " new"]
    targets: Int[np.ndarray, " new"]
    tokens: Int[np.ndarray, " new"]


class Copies(NamedTuple):
    """Hypotheses that go on in another lane; the caller copies their model states there.

    This comes before the extensions, which may overwrite the sources.

    Attributes:
        sources: row of the state.
        targets: row that it is copied into.
    """

    sources: Int[np.ndarray, " copies"]
    targets: Int[np.ndarray, " copies"]


class BeamChange(NamedTuple):
    """What `ByteBeam.read` changed, and what the caller does to the model states.

    Attributes:
        copies: states to copy into other lanes, first.
        extensions: states to make, after that.
        kept: share of each lane's weight that the beam kept.
    """

    copies: Copies
    extensions: Extensions
    kept: Float[np.ndarray, " lanes"]


@dataclasses.dataclass(frozen=True)
class _Moves:
    """Every step from a hypothesis to a child of its node.

    Attributes:
        hypothesis: index of the hypothesis.
        child: node that it would move to.
        below: weight of the tokens that go on below the child.
        scale: of each hypothesis, its weight over the mass below its node.
    """

    hypothesis: Int[np.ndarray, " moves"]
    child: Int[np.ndarray, " moves"]
    below: Float[np.ndarray, " moves"]
    scale: Float[np.ndarray, " hypotheses"]


class ByteBeam:
    """Hypotheses of several texts ("lanes"), each with a state row lane * slots + slot.

    Keeps the `width` best hypotheses of a lane. One that a token ended costs a pass of the model,
    and is dropped below `ratio` times the best. One that goes on inside a token costs nothing, and
    without it the bytes that only it foresees would look impossible, so that the ratio does not
    apply to it. The best hypothesis at the root is always kept: every byte is possible from there,
    so that every text that the vocabulary can spell has a probability.
    """

    def __init__(
        self,
        trie: ByteTrie,
        lanes: int,
        width: int,
        ratio: float,
        smallest: float = _SMALLEST,
    ):
        """Args:
        trie: of the vocabulary.
        lanes: texts side by side.
        width: hypotheses a lane.
        ratio: share of the best one's weight below which those that a token ended are dropped.
        smallest: what smaller probabilities count as. By default that of float32, as one that
            float32 rounds to 0 is small, but not impossible; 0 where 0 means impossible.
        """
        self.trie, self.lanes, self.width, self.ratio = trie, lanes, width, ratio
        self._smallest = smallest
        self.slots = width + 1
        self._probabilities = np.zeros((lanes * self.slots + 1, len(trie.order)))
        self._row = self._node = np.zeros(0, np.int64)
        self._weight = np.zeros(0)
        self._moves: _Moves | None = None

    @property
    def rows(self) -> int:
        """State rows that all hypotheses together may need."""
        return self.lanes * self.slots

    @property
    def live(self) -> Int[np.ndarray, " hypotheses"]:
        """The state rows of all hypotheses."""
        return self._row

    def start(self, lanes: Int[np.ndarray, " started"]) -> Int[np.ndarray, " started"]:
        """Begins texts in some lanes and returns the state row of each; all others are dropped.

        Each text has one hypothesis, at the root of the trie.
        """
        rows = np.sort(lanes)[::-1] * self.slots
        self._row, self._node = rows, np.zeros(len(rows), np.int64)
        self._weight = np.ones(len(rows))
        return lanes * self.slots

    def set_probabilities(
        self, rows: Int[np.ndarray, " rows"], probabilities: Float[np.ndarray, "rows tokens"]
    ) -> None:
        """Sets the next-token probabilities of some state rows, in the order of the trie."""
        self._probabilities[rows] = np.maximum(probabilities, self._smallest)

    def predict(self) -> Float[np.ndarray, "lanes 257"]:
        """The probability of each next byte, and of the end; all 0 in a lane without a text."""
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
        """The mass of the tokens that end at each child, and of those that go on below it.

        These are sums of slices, not differences of running sums, so that the smallest keep their
        digits.
        """
        trie, tokens = self.trie, self._probabilities.shape[1]
        # The children of a hypothesis lie side by side, so that its slices are cut by their edges
        # and the end of the last. Rows descend, so that nothing is summed between hypotheses.
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
        from_lanes: Int[np.ndarray, " lanes"] | None = None,
    ) -> BeamChange:
        """Reads the next byte of each text; `predict` must have been called.

        Args:
            symbols: the bytes; `STOP`, or the end of text, for a lane whose text is over; `STAY`
                for one that waits.
            from_lanes: the lane whose text each lane goes on from; default: its own. What a lane
                held that goes on from another one is dropped, and none may go on from it.
        """
        trie, moves = self.trie, self._moves
        assert moves is not None, "predict first"
        lane = self._row // self.slots
        waiting = symbols[lane] == STAY
        old = self._row[waiting], self._node[waiting], self._weight[waiting]

        wanted = np.where(symbols == END, STOP, symbols)
        own = np.arange(self.lanes)
        guests = own[:0] if from_lanes is None else np.flatnonzero(from_lanes != own)
        into = lane[moves.hypothesis]
        move = np.flatnonzero(trie.symbol[moves.child] == _with(wanted, guests, STOP)[into])
        into = into[move]
        if from_lanes is not None and len(guests):
            rank = _ranks(from_lanes[guests])
            for some in (guests[rank == number] for number in range(rank.max() + 1)):
                guest = _with(np.full(self.lanes, -1), from_lanes[some], some)[
                    lane[moves.hypothesis]
                ]
                fork = np.flatnonzero((guest >= 0) & (trie.symbol[moves.child] == wanted[guest]))
                move, into = np.append(move, fork), np.append(into, guest[fork])
        hypothesis, child = moves.hypothesis[move], moves.child[move]
        # first the hypotheses that go on below, then those that a token ends
        on = moves.below[move] > 0
        ending = trie.own_end[child] - trie.start[child]
        parent = np.repeat(hypothesis, ending)
        token = _ranges(trie.start[child], ending)
        ended = moves.scale[parent] * self._probabilities[self._row[parent], token]
        possible = ended > 0
        parent, token, ended = parent[possible], token[possible], ended[possible]
        found = np.concatenate([hypothesis[on], parent])
        into = np.concatenate([into[on], np.repeat(into, ending)[possible]])
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
        return BeamChange(copies, extensions, kept_share)

    def _choose(
        self,
        lane: Int[np.ndarray, " found"],
        weight: Float[np.ndarray, " found"],
        at_root: Bool[np.ndarray, " found"],
    ) -> Bool[np.ndarray, " found"]:
        """Says which hypotheses to keep; they are sorted by lane, the best first."""
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
        """Returns a state row for each: its own, or a free one of the lane if it is new."""
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
    """Returns a copy of the values with new ones in some places."""
    changed = values.copy()
    changed[index] = new
    return changed


def _ranks(values: Int[np.ndarray, " values"]) -> Int[np.ndarray, " values"]:
    """Returns how many equal values come before each.

    Example:
        >>> _ranks(np.array([7, 3, 7, 7, 3])).tolist()
        [0, 0, 1, 2, 1]
    """
    order = np.argsort(values, kind="stable")
    _, first, counts = np.unique(values[order], return_index=True, return_counts=True)
    found = np.empty(len(values), np.int64)
    found[order] = np.arange(len(values)) - np.repeat(first, counts)
    return found


def _ranges(
    first: Int[np.ndarray, " ranges"], counts: Int[np.ndarray, " ranges"]
) -> Int[np.ndarray, " all"]:
    """Concatenates the ranges first .. first + count."""
    ends = np.cumsum(counts)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - ends + counts, counts)
