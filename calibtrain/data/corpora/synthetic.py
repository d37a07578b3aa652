"""A source of text with a known entropy rate: a word-level Markov chain with Zipfian words.

A document is a stationary stretch of the chain. Its first word has the stationary distribution;
after each word the document ends with probability q, and otherwise goes on to one of the word's
successors. Words are distinct strings of letters, joined by one space, so text and words determine
each other.

The entropy of a document: let N be its number of words, pi the stationary distribution and P_w the
distribution of the successor of w. N is geometric with mean 1/q and independent of the words, so

    H(document) = H(N) + H(words | N)
                = H_b(q)/q + H(pi) + (1/q - 1) sum_w pi_w H(P_w)        bits,

where H_b is the binary entropy. By stationarity every word of the document is distributed by pi, so

    E bytes = (1/q) sum_w pi_w bytes(w) + (1/q - 1)                     the spaces between words.

Their ratio is the entropy rate in bits per byte: what a perfect model of whole documents achieves,
the end of each document included. Over many documents, total -log2 P over total bytes tends to it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from calibtrain.config import MarkovConfig
from calibtrain.errors import UserError

_MOST_TRANSITIONS = 10_000_000  # words x successors: about 100 MB
_WORDS_AT_ONCE = 2**18
_SOLVED_DIRECTLY = 2048  # words; a dense system of 32 MB, a fraction of a second

_Uniform = Callable[[int], Float[np.ndarray, " count"]]


@dataclass(frozen=True, eq=False)
class MarkovSource:
    """A Markov chain over words that ends a document with a fixed probability after each word."""

    words: tuple[str, ...]
    """The spelling of each word: distinct, not empty, without spaces."""
    successors: Int[np.ndarray, "words slots"]
    """The words that may follow each word; those of one row are distinct."""
    slot_probabilities: Float[np.ndarray, " slots"]
    """Probability of each slot of `successors`, the same for every word; they sum to 1."""
    stationary: Float[np.ndarray, " words"]
    """The stationary distribution of the chain, and of a document's first word."""
    end_probability: float
    """The probability q that a document ends after a word; its mean length is 1/q words."""

    @property
    def transition(self) -> Float[np.ndarray, "words words"]:
        """The transition probabilities as a dense matrix, for small sources."""
        matrix = np.zeros((len(self.words), len(self.words)))
        rows = np.arange(len(self.words))[:, None]
        np.add.at(matrix, (rows, self.successors), self.slot_probabilities)
        return matrix

    @property
    def entropy_bits_per_document(self) -> float:
        """Entropy of a document, in bits, its end included."""
        q = self.end_probability
        coin = _entropy(np.array([q, 1.0 - q]))
        step = _entropy(self.slot_probabilities)  # the same for every word
        return coin / q + _entropy(self.stationary) + (1.0 / q - 1.0) * step

    @property
    def bytes_per_document(self) -> float:
        """Expected bytes of a document, the spaces between its words included."""
        q = self.end_probability
        lengths = np.array([len(word.encode()) for word in self.words])
        return float(self.stationary @ lengths) / q + (1.0 / q - 1.0)

    @property
    def entropy_bits_per_byte(self) -> float:
        """The entropy rate: entropy of a document over its expected bytes."""
        return self.entropy_bits_per_document / self.bytes_per_document

    def sample_documents(self, count: int, seed: int) -> Iterator[str]:
        """Draws independent documents, the same ones for the same seed on every machine."""
        uniform = _uniform_stream(seed, 1)
        slot_edges = np.cumsum(self.slot_probabilities)[:-1]
        first_edges = np.cumsum(self.stationary)[:-1]
        rows = self.successors.tolist()
        at_once = max(1, int(_WORDS_AT_ONCE * self.end_probability))
        for start in range(0, count, at_once):
            batch = min(at_once, count - start)
            first = np.searchsorted(first_edges, uniform(batch), side="right").tolist()
            further = np.log1p(-uniform(batch)) // np.log1p(-self.end_probability)
            ends = np.cumsum(further.astype(np.int64))
            slots = np.searchsorted(slot_edges, uniform(int(ends[-1])), side="right").tolist()
            begin = 0
            for word, end in zip(first, ends.tolist(), strict=True):
                spelled = [self.words[word]]
                for slot in slots[begin:end]:
                    word = rows[word][slot]
                    spelled.append(self.words[word])
                begin = end
                yield " ".join(spelled)

    def log2_probability(self, text: str) -> float:
        """Returns the exact log2 probability of `text` as a whole document, -inf if impossible."""
        try:
            path = np.array([self._index[word] for word in text.split(" ")])
        except KeyError:
            return -np.inf
        follows = self.successors[path[:-1]] == path[1:, None]
        steps = follows @ self.slot_probabilities
        q = self.end_probability
        with np.errstate(divide="ignore"):
            logs = np.log2(self.stationary[path[0]]) + np.log2(steps).sum()
        return float(logs + steps.size * np.log2(1.0 - q) + np.log2(q))

    @cached_property
    def _index(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}


def markov_source(config: MarkovConfig) -> MarkovSource:
    """Builds the source that a configuration describes, the same one for the same seed.

    Each word gets `successors` distinct next words. One of them lies on a cycle through all words,
    so that every word can be reached from every other; the rest are drawn by Zipf's law, so that
    few words are common and many are rare. Their order, and with it their probability, is random.

    Raises:
        UserError: when words x successors is too large to hold in memory.
    """
    if config.words * config.successors > _MOST_TRANSITIONS:
        raise UserError(
            f"corpus.markov: words ({config.words}) times successors ({config.successors}) must "
            f"not exceed {_MOST_TRANSITIONS}"
        )
    uniform = _uniform_stream(config.seed, 0)
    successors = _draw_successors(config, uniform)
    law = np.arange(1, config.successors + 1, dtype=np.float64) ** -config.zipf
    law /= law.sum()
    return MarkovSource(
        words=_spell(config, uniform),
        successors=successors,
        slot_probabilities=law,
        stationary=stationary_law(successors, law),
        end_probability=1.0 / config.mean_document_words,
    )


def stationary_law(
    successors: Int[np.ndarray, "words slots"], slot_probabilities: Float[np.ndarray, " slots"]
) -> Float[np.ndarray, " words"]:
    """Returns the stationary distribution pi of an irreducible chain.

    A linear solve (for small chains) is followed by power steps until |pi P - pi| (L1) is at most
    1e-14. The words of a document are distributed by pi up to 1/q times this residual, so that the
    residual, and not the error of pi, bounds the error of the entropy.

    Raises:
        UserError: when the residual is above 1e-12 after 20,000 steps.
    """
    count = len(successors)
    law = np.full(count, 1.0 / count)
    if count <= _SOLVED_DIRECTLY:
        system = np.eye(count) + 1.0 / count
        np.subtract.at(system, (successors, np.arange(count)[:, None]), slot_probabilities)
        law = np.maximum(np.linalg.solve(system, law), 0.0)
        law /= law.sum()
    for _ in range(20_000):
        mass = (law[:, None] * slot_probabilities).ravel()
        following = np.bincount(successors.ravel(), weights=mass, minlength=count)
        residual = np.abs(following - law).sum()
        if residual <= 1e-14:
            break
        law = (
            law + following
        ) / 2  # the lazy chain has the same pi and converges where P is periodic
        law /= law.sum()
    if residual > 1e-12:
        raise UserError(
            f"corpus.markov: this chain of {count} words mixes too slowly to compute its entropy "
            f"rate; lower zipf, or take at most {_SOLVED_DIRECTLY} words"
        )
    return law


# --- parts ---------------------------------------------------------------------------------------


def _entropy(law: np.ndarray) -> float:
    """Returns the entropy of a distribution, in bits."""
    positive = law[law > 0]
    return float(-(positive * np.log2(positive)).sum())


def _uniform_stream(seed: int, stream: int) -> _Uniform:
    """Returns a function n -> n uniforms in [0, 1), from raw bits, which NumPy never changes."""
    generator = np.random.PCG64([seed, stream])

    def uniform(count: int) -> Float[np.ndarray, " count"]:
        return (generator.random_raw(count) >> np.uint64(11)) * 2.0**-53

    return uniform


def _draw_successors(config: MarkovConfig, uniform: _Uniform) -> Int[np.ndarray, "words slots"]:
    count, slots = config.words, config.successors
    cycle = np.argsort(uniform(count), kind="stable")
    along = np.empty(count, np.int64)
    along[cycle] = np.roll(cycle, -1)
    inverse_weights = np.arange(1, count + 1, dtype=np.float64) ** config.zipf
    successors = np.empty((count, slots), np.int32)
    rows_at_once = max(1, 2**22 // count)
    for start in range(0, count, rows_at_once):
        rows = np.arange(start, min(start + rows_at_once, count))
        # Taking the smallest of exponential arrival times draws by weight without replacement
        # (Efraimidis and Spirakis, 2006).
        arrival = -np.log1p(-uniform(rows.size * count)).reshape(rows.size, count)
        arrival *= inverse_weights
        arrival[np.arange(rows.size), along[rows]] = -1.0
        chosen = np.sort(np.argpartition(arrival, slots - 1, axis=1)[:, :slots], axis=1)
        order = np.argsort(uniform(chosen.size).reshape(chosen.shape), axis=1, kind="stable")
        successors[rows] = np.take_along_axis(chosen, order, axis=1)
    return successors


def _spell(config: MarkovConfig, uniform: _Uniform) -> tuple[str, ...]:
    """Returns distinct random strings; frequent words are short, as in languages (Zipf's law)."""
    words: dict[str, None] = {}
    while len(words) < config.words:
        needed = np.log(len(words) + 2) / np.log(config.letters)
        length = int(np.ceil(needed)) + int(uniform(1)[0] * 3)
        letters = (uniform(length) * config.letters).astype(np.uint8) + ord("a")
        words.setdefault(letters.tobytes().decode("ascii"))
    return tuple(words)
