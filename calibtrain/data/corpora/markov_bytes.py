"""The perfect byte-level model of a Markov source: the exact distribution of the next byte or end.

The state of a text is its last whole word and the letters since. A word v with conditional
probability P(v) adds P(v) to each of its letters, in the states of its prefixes. In the state of
its whole spelling (which may be a prefix of other words) it adds P(v)(1 - q) to the space and
P(v) q to the end of text. The distribution of a state is the normalised sums. Their total, times
how often the last word occurs in a document, is how often a document visits the state.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from calibtrain.data.corpora.documents import END
from calibtrain.data.corpora.synthetic import MarkovSource

_SPACE = ord(" ")
_MOST_TRANSITIONS = 200_000  # about 4 states each, of 2 KB


@dataclass(frozen=True, eq=False)
class MarkovBytes:
    """All states that the documents of a source visit.

    Attributes:
        laws: in each state, the probabilities of the 256 bytes and the end of text (`END`).
        visits: the expected number of visits to each state in a document.
    """

    laws: Float[np.ndarray, "states 257"]
    visits: Float[np.ndarray, " states"]
    _index: dict[str, int]
    _pairs: Int[np.ndarray, " pairs"]
    """(previous word + 1) * words + word, ascending; the first term is 0 for a first word."""
    _begin: Int[np.ndarray, " pairs+1"]
    """Index in `_trail` at which the states along each pair's second word begin."""
    _trail: Int[np.ndarray, " steps"]

    @classmethod
    def of(cls, source: MarkovSource) -> "MarkovBytes":
        """Enumerates the states of a source of at most 200,000 words x successors.

        Raises:
            ValueError: for a larger source.
        """
        if source.successors.size > _MOST_TRANSITIONS:
            raise ValueError(
                f"source: {source.successors.size} words x successors are too many to enumerate; "
                f"at most {_MOST_TRANSITIONS}"
            )
        q, spelled = source.end_probability, [word.encode() for word in source.words]
        laws: list[np.ndarray] = []
        visits: list[float] = []
        trails: dict[int, list[int]] = {}
        for previous, (starts, following) in enumerate(_branches(source)):
            states: dict[bytes, int] = {}
            for word, probability in following:
                text = spelled[word]
                trail = []
                for prefix in (text[:length] for length in range(len(text) + 1)):
                    if prefix not in states:
                        states[prefix] = len(laws)
                        laws.append(np.zeros(END + 1))
                    trail.append(states[prefix])
                for state, byte in zip(trail, text, strict=False):
                    laws[state][byte] += probability
                laws[trail[-1]][_SPACE] += probability * (1 - q)
                laws[trail[-1]][END] += probability * q
                trails[previous * len(spelled) + word] = trail
            visits += [starts * float(laws[state].sum()) for state in states.values()]
        table = np.array(laws)
        pairs = np.array(sorted(trails))
        steps = [trails[pair] for pair in pairs.tolist()]
        return cls(
            laws=table / table.sum(axis=1, keepdims=True),
            visits=np.array(visits),
            _index={word: index for index, word in enumerate(source.words)},
            _pairs=pairs,
            _begin=np.cumsum([0, *map(len, steps)]),
            _trail=np.array(list(itertools.chain.from_iterable(steps))),
        )

    def read(
        self, texts: Sequence[str]
    ) -> tuple[Int[np.ndarray, " events"], Int[np.ndarray, " events"], Int[np.ndarray, " events"]]:
        """Reads the events of documents: every byte and every end, in order.

        Args:
            texts: whole documents.

        Returns:
            For each event: its document, the state before it, and the byte or `END` itself.

        Raises:
            ValueError: for a text that the source cannot produce.
        """
        try:
            paths = [[self._index[word] for word in text.split(" ")] for text in texts]
        except KeyError as error:
            raise ValueError(f"texts: {error.args[0]!r} is not a word of the source") from None
        counts = np.array([len(path) for path in paths])
        words = np.array(list(itertools.chain.from_iterable(paths)), np.int64)
        before = np.append(0, words[:-1] + 1)  # previous word + 1; 0 for a first word
        before[np.cumsum(counts)[:-1]] = 0
        pair = before * len(self._index) + words
        place = np.minimum(np.searchsorted(self._pairs, pair), len(self._pairs) - 1)
        if (self._pairs[place] != pair).any():
            raise ValueError("texts: a word follows another that it cannot follow")
        steps = self._begin[place + 1] - self._begin[place]
        within = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
        states = self._trail[np.repeat(self._begin[place], steps) + within]
        end = np.array([END])
        symbols = [(np.frombuffer(text.encode(), np.uint8), end) for text in texts]
        document = np.repeat(np.repeat(np.arange(len(texts)), counts), steps)
        return document, states, np.concatenate(list(itertools.chain.from_iterable(symbols)))


def _branches(source: MarkovSource) -> Iterator[tuple[float, list[tuple[int, float]]]]:
    """Yields how often a word follows a given word in a document, and each such word's probability.

    The first item is for the document's start, the others are for each word in turn.
    """
    yield 1.0, [(v, p) for v, p in enumerate(source.stationary.tolist()) if p > 0]
    further = 1.0 / source.end_probability - 1.0
    for share, row in zip(source.stationary.tolist(), source.successors.tolist(), strict=True):
        chances = zip(row, source.slot_probabilities.tolist(), strict=True)
        yield further * share, [(v, p) for v, p in chances if p > 0]
