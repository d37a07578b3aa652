"""What the members of a joint hypothesis propose next, best-first over the product of their tokens.

Members read the same text, each in tokens of its own, and may be at different places of it. Each
one's text is a beginning of the longest, and whoever is behind proposes tokens that agree with what
the longest already says. A text is written in symbols: the bytes, and the end of text as a 257th,
whatever bytes a member's token for it may stand for. So nothing agrees with a text that goes on
where another one ended.
"""

import heapq
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.corpora.documents import END
from calibtrain.generation.byte_trie import ByteTrie

END_SYMBOL = chr(END)
"""The end of text in a string of symbols, in which chr(b) stands for the byte b."""


def symbols_of(data: bytes) -> str:
    """Returns bytes as a string of symbols.

    Example:
        >>> symbols_of("é".encode())
        'Ã©'
    """
    return data.decode("latin-1")


class Spelling:
    """The vocabulary of a member as strings of symbols, and its trie.

    Attributes:
        symbols: of each token; "" for those that are never proposed.
        byte_lengths: how many bytes of text each token adds.
        longest: the largest of them.
    """

    def __init__(self, piece_bytes: Sequence[bytes], end_id: int):
        """Args:
        piece_bytes: the bytes of each token; those of the end are not read.
        end_id: the token that ends a text.
        """
        self.symbols = [symbols_of(piece) for piece in piece_bytes]
        self.symbols[end_id] = END_SYMBOL
        self.byte_lengths = np.array([len(each) for each in self.symbols])
        self.byte_lengths[end_id] = 0
        self.longest = int(self.byte_lengths.max())
        trie = ByteTrie.of([*piece_bytes[:end_id], b"", *piece_bytes[end_id + 1 :]], end_id)
        self._trie = trie
        self._children: dict[int, dict[int, int]] = {}

    def options(self, ahead: str, scores: Float[np.ndarray, " vocab"]) -> "Options":
        """Returns the tokens that agree with the symbols that are ahead, by their scores.

        Args:
            ahead: what the longest text says beyond this member's own.
            scores: of each token; minus infinity for what is not possible.
        """
        trie, node = self._trie, 0
        inside: list[int] = []
        for symbol in ahead:
            found = self.children(node).get(ord(symbol))
            if found is None:
                return Options(inside, None, scores, self, len(ahead))
            node = found
            inside += trie.order[trie.start[node] : trie.own_end[node]].tolist()
        return Options(inside, node, scores, self, len(ahead))

    def children(self, node: int) -> dict[int, int]:
        """The child of a node by the symbol that leads to it."""
        if node not in self._children:
            trie, first = self._trie, int(self._trie.first_child[node])
            below = range(first, first + int(trie.children[node]))
            self._children[node] = {int(trie.symbol[child]): child for child in below}
        return self._children[node]

    def below(self, node: int) -> Int[np.ndarray, " tokens"]:
        """The tokens that begin with the path to a node, in the order of the vocabulary."""
        return np.sort(self._trie.order[self._trie.start[node] : self._trie.end[node]])

    def best_below(
        self, node: int, scores: Float[np.ndarray, " vocab"]
    ) -> tuple[Int[np.ndarray, " children"], Float[np.ndarray, " children"]]:
        """The symbols that lead on from a node, and the best score of the tokens below each."""
        trie, first = self._trie, int(self._trie.first_child[node])
        count = int(trie.children[node])
        if not count:
            return np.zeros(0, np.int64), np.zeros(0)
        starts = trie.start[first : first + count]
        part = scores[trie.order[starts[0] : trie.end[first + count - 1]]]
        return trie.symbol[first : first + count], np.maximum.reduceat(part, starts - starts[0])


class Ranked:
    """Tokens in the order of their scores, the best first; the impossible ones are left out."""

    def __init__(
        self,
        tokens: Int[np.ndarray, " tokens"],
        scores: Float[np.ndarray, " vocab"],
        symbols: Sequence[str],
        ahead: int,
    ):
        """Args:
        tokens: in the order of the vocabulary, in which equal scores stay.
        scores: of each entry of the vocabulary.
        symbols: of each entry.
        ahead: how many symbols of a token the text has already.
        """
        own = scores[tokens]
        order = np.argsort(-own, kind="stable")[: int((own > -np.inf).sum())]
        self.tokens, self._scores = tokens[order].tolist(), own[order].tolist()
        self._symbols, self._ahead = symbols, ahead

    def __len__(self) -> int:
        return len(self.tokens)

    def score(self, place: int) -> float:
        """The score of the token at a place."""
        return float(self._scores[place])

    def beyond(self, place: int) -> str:
        """The symbols by which the token at a place is longer than the text."""
        return self._symbols[self.tokens[place]][self._ahead :]


class Options:
    """The tokens of a member that agree with what is ahead of it.

    Those that end inside of it, and those that go beyond it, by their first symbol there.
    """

    def __init__(
        self,
        inside: Sequence[int],
        node: int | None,
        scores: Float[np.ndarray, " vocab"],
        spelling: Spelling,
        ahead: int,
    ):
        self._scores, self._spelling, self._node, self._ahead = scores, spelling, node, ahead
        self._inside = np.sort(np.array(inside, np.int64))
        self._ranked: dict[int | None, Ranked] = {}

    def best(self) -> dict[int, float]:
        """The best score of what goes beyond, by its first symbol there."""
        if self._node is None:
            return {}
        symbols, best = self._spelling.best_below(self._node, self._scores)
        possible = best > -np.inf
        return dict(zip(symbols[possible].tolist(), best[possible].tolist(), strict=True))

    @property
    def best_inside(self) -> float:
        """The best score of the tokens that end inside; minus infinity where there is none."""
        return float(self._scores[self._inside].max(initial=-np.inf))

    def ranked(self, symbol: int | None) -> Ranked:
        """What ends inside, and what goes beyond with a symbol; None means the former alone."""
        if symbol not in self._ranked:
            tokens, spelling = self._inside, self._spelling
            if symbol is not None and self._node is not None:
                child = spelling.children(self._node).get(symbol)
                if child is not None:
                    tokens = np.sort(np.concatenate([tokens, spelling.below(child)]))
            self._ranked[symbol] = Ranked(tokens, self._scores, spelling.symbols, self._ahead)
        return self._ranked[symbol]


class Joint(NamedTuple):
    """One token of each member that has to go on.

    Attributes:
        score: of the joint hypothesis with them.
        product: index of the product that they are in.
        tokens: of each member that proposes, in their order.
        beyond: the symbols that the longest of them adds to the text.
    """

    score: float
    product: int
    tokens: tuple[int, ...]
    beyond: str


def best_first(
    products: Sequence[tuple[float, Sequence[Options]]], closed: Container[int] = ()
) -> Iterator[Joint | None]:
    """Yields tokens that agree, the best score first; None for those that were seen and do not.

    A product is cut into parts: in each, all that goes beyond begins with one symbol there, as what
    does not cannot agree. From the best corner of each part, the search goes on to neighbours, one
    place further in the list of one member.

    Args:
        products: the score of a joint hypothesis, and the options of each member that proposes.
        closed: products that are not looked at any further; it may grow meanwhile.
    """
    heap: list[tuple[float, int, int, tuple[int, ...]]] = []
    symbols: list[list[tuple[float, int | None]]] = []
    for number, (score, options) in enumerate(products):
        parts = _parts(score, options)
        symbols.append(parts)
        if parts:
            heapq.heappush(heap, (-parts[0][0], number, 0, (0,) * len(options)))
    seen: set[tuple[int, int, tuple[int, ...]]] = set()
    while heap:
        negative, number, part, places = heapq.heappop(heap)
        if number in closed:
            continue
        score, options = products[number]
        if not any(places) and part + 1 < len(symbols[number]):  # the next part's corner
            heapq.heappush(heap, (-symbols[number][part + 1][0], number, part + 1, places))
        symbol = symbols[number][part][1]
        lists = [each.ranked(symbol) for each in options]
        for member, own in enumerate(lists):
            place = places[member] + 1
            if place < len(own):
                following = (*places[:member], place, *places[member + 1 :])
                key = (number, part, following)
                if key not in seen:
                    seen.add(key)
                    worse = negative + own.score(place - 1) - own.score(place)
                    heapq.heappush(heap, (worse, number, part, following))
        added = [own.beyond(place) for own, place in zip(lists, places, strict=True)]
        beyond = max(added, key=len)
        if not all(map(beyond.startswith, added)) or (symbol is not None and not beyond):
            yield None
            continue
        total = score + sum(own.score(place) for own, place in zip(lists, places, strict=True))
        tokens = tuple(own.tokens[place] for own, place in zip(lists, places, strict=True))
        yield Joint(total, number, tokens, beyond)


def _parts(score: float, options: Sequence[Options]) -> list[tuple[float, int | None]]:
    """The best score of each part of a product that is not empty, and its symbol, best first."""
    each = [option.best() for option in options]
    inside = [option.best_inside for option in options]
    found: list[tuple[float, int | None]] = []
    for symbol in set().union(*each):
        best = [
            max(own.get(symbol, -np.inf), within) for own, within in zip(each, inside, strict=True)
        ]
        if min(best) > -np.inf:
            found.append((score + sum(best), symbol))
    if min(inside) > -np.inf:
        found.append((score + sum(inside), None))
    return sorted(found, key=lambda part: (-part[0], -1 if part[1] is None else part[1]))
