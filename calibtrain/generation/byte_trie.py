"""The byte trie of a vocabulary: which tokens begin with which bytes.

Sorted by their bytes, the tokens below a node are a contiguous range, so that a node's mass is the
sum over a slice of the sorted probabilities, and its children cut that slice into pieces.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from calibtrain.data.corpora.documents import END


@dataclasses.dataclass(frozen=True)
class ByteTrie:
    """Nodes in breadth-first order, the root first; a node's children lie side by side.

    The end of text is a token of one symbol, `END`. Tokens of the same bytes share a node. The path
    to a node spells exactly the tokens order[start:own_end]; the tokens order[own_end:end] begin
    with that path and are longer.

    Attributes:
        longest: symbols of the longest token.
        order: token ids sorted by their symbols; tokens that stand for no bytes are left out.
        symbol: last symbol on the path to each node; -1 for the root.
        start: see above.
        own_end: see above.
        end: see above.
        first_child: the children of a node are the nodes first_child .. first_child + children.
        children: number of children.
    """

    longest: int
    order: Int[np.ndarray, " tokens"]
    symbol: Int[np.ndarray, " nodes"]
    start: Int[np.ndarray, " nodes"]
    own_end: Int[np.ndarray, " nodes"]
    end: Int[np.ndarray, " nodes"]
    first_child: Int[np.ndarray, " nodes"]
    children: Int[np.ndarray, " nodes"]

    @classmethod
    def of(cls, piece_bytes: Sequence[bytes], end_id: int) -> "ByteTrie":
        """The trie of pieces by id; empty pieces, except the end of text, are left out."""
        spelled = {index: tuple(piece) for index, piece in enumerate(piece_bytes) if piece}
        spelled[end_id] = (END,)
        order = sorted(spelled, key=lambda index: (spelled[index], index))
        words = [spelled[index] for index in order]
        nodes = [(-1, 0, len(order), 0)]  # symbol, start, end, depth
        own_ends, first_children, children = [], [], []
        for _, start, end, depth in nodes:  # the list grows on the way
            own_end = start
            while own_end < end and len(words[own_end]) == depth:
                own_end += 1
            own_ends.append(own_end)
            first_children.append(len(nodes))
            place = own_end
            while place < end:
                symbol, begin = words[place][depth], place
                while place < end and words[place][depth] == symbol:
                    place += 1
                nodes.append((symbol, begin, place, depth + 1))
            children.append(len(nodes) - first_children[-1])
        symbols, starts, ends, _ = zip(*nodes, strict=True)
        columns = (order, symbols, starts, own_ends, ends, first_children, children)
        longest = max(map(len, words))
        return cls(longest, *(np.array(column, np.int64) for column in columns))
