"""Models of tiny vocabularies whose probabilities of every text are known."""

import math
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np

from calibtrain.data.corpora.documents import END, SYMBOLS
from calibtrain.ensembles.proposals import Spelling
from calibtrain.generation.byte_beam import ByteBeam
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.generation.next_byte import Beam, NextByte

Tokens = tuple[int, ...]
LETTERS = (97, 98, END)


class Bigram:
    """A model of a, b and the end of text, which sees one symbol back."""

    def __init__(
        self,
        seed: int,
        lanes: int = 1,
        *,
        never: tuple[int, int] | None = None,
        spread: float = 1.0,
    ):
        rng = np.random.default_rng(seed)
        self.lanes, self._now = lanes, np.zeros(lanes, np.int64)
        self.table = rng.dirichlet(np.full(3, spread), 3)
        if never is not None:
            self.table[never] = 0
            self.table /= self.table.sum(1, keepdims=True)

    def predict(self) -> np.ndarray:
        found = np.zeros((self.lanes, SYMBOLS))
        found[:, LETTERS] = self.table[self._now]
        return found

    def read(self, symbols: np.ndarray, from_lanes: np.ndarray | None = None) -> np.ndarray:
        now = self._now if from_lanes is None else self._now[from_lanes]
        new = [
            LETTERS.index(each) if each >= 0 else old
            for each, old in zip(symbols, now, strict=True)
        ]
        self._now = np.array(new)
        return np.ones(self.lanes)

    def of(self, text: tuple[int, ...]) -> float:
        """The probability of a text, its end included where it has one."""
        places = [LETTERS.index(each) for each in text]
        return math.prod(
            self.table[now, new] for now, new in zip([0, *places], places, strict=False)
        )


class Toy:
    """Decoding states of a model whose distributions are a random function of the tokens so far.

    Entry 0 begins a document and is never proposed, but has probability; entry 1 ends one.
    """

    def __init__(
        self,
        seed: int,
        pieces: Sequence[bytes],
        rows: int = 1,
        *,
        end_piece: bytes = b"",
        never: Sequence[bytes] = (),
        sharpness: float = 1.5,
    ):
        self.seed, self.sharpness, self.never = seed, sharpness, never
        self.pieces = (b"", end_piece, *pieces)
        self.texts: list[Tokens | None] = [None] * rows
        self.passes = 0

    def after(self, tokens: Tokens) -> np.ndarray:
        rng = np.random.default_rng([self.seed, *tokens])
        weights = np.exp(rng.normal(size=len(self.pieces)) * self.sharpness)
        weights[[piece in self.never for piece in self.pieces]] = 0
        return weights / weights.sum()

    def start(self, prefixes: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        for row, prefix in zip(rows, prefixes, strict=True):
            self.texts[row] = tuple(prefix.tolist())
        return self._found(rows)

    def extend(self, sources: np.ndarray, targets: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        self.passes += len(tokens)
        new = [(*self._text(row), int(token)) for row, token in zip(sources, tokens, strict=True)]
        for row, text in zip(targets, new, strict=True):
            self.texts[row] = text
        return self._found(targets)

    def copy(self, sources: np.ndarray, targets: np.ndarray) -> None:
        raise AssertionError("a search branches as it reads")

    def keep(self, rows: np.ndarray) -> None:
        self.texts = [text if row in rows else None for row, text in enumerate(self.texts)]

    def log_probability(self, tokens: Tokens) -> float:
        """The log-probability of tokens after the document start."""
        told = [np.log(self.after((0, *tokens[:i]))[token]) for i, token in enumerate(tokens)]
        return float(np.sum(told))

    def spell(self, tokens: Tokens) -> bytes:
        return b"".join(self.pieces[token] for token in tokens if token != 1)

    def spellings(self, text: bytes) -> Iterator[Tokens]:
        """All token sequences of a text."""
        if not text:
            yield ()
        for token, piece in enumerate(self.pieces):
            if token > 1 and text.startswith(piece) and piece not in self.never:
                for rest in self.spellings(text[len(piece) :]):
                    yield (token, *rest)

    def _text(self, row: int) -> Tokens:
        text = self.texts[row]
        assert text is not None, "a state was read that had been dropped"
        return text

    def _found(self, rows: np.ndarray) -> np.ndarray:
        return np.array([self.after(self._text(row)) for row in rows])


class ToyMember:
    """A member whose model is a `Toy`, and whose beam follows every tokenisation."""

    def __init__(self, name: str, toy: Toy, context: int = 100):
        self.name, self.toy = name, toy
        lengths = np.array([len(piece) for piece in toy.pieces])
        lengths[1] = 0
        tokenizer = SimpleNamespace(piece_bytes=toy.pieces, eos_id=1, byte_lengths=lengths)
        self.model = SimpleNamespace(
            tokenizer=tokenizer, context=context, prompt_ids=self._prompt_ids, about={}
        )

    def next_byte(self, lanes: int, beam: Beam | None = None, texts: int | None = None) -> NextByte:
        trie = ByteTrie.of([*self.toy.pieces[:1], b"", *self.toy.pieces[2:]], 1)
        hypotheses = ByteBeam(trie, lanes, 40, ratio=0.0, smallest=0.0)
        return NextByte(hypotheses, _InOrder(self._states(hypotheses.rows), trie.order))

    def states(self, rows: int) -> Toy:
        return self._states(rows)

    def last_distributions(self, ids: np.ndarray, count: int) -> np.ndarray:
        every = [self.toy.after(tuple(ids[:place].tolist())) for place in range(1, len(ids) + 1)]
        with np.errstate(divide="ignore"):
            return np.log(every[-count:])

    @property
    def spelling(self) -> Spelling:
        return Spelling(self.toy.pieces, 1)

    def probability(self, text: bytes, *, ended: bool) -> float:
        """The probability of a text, and its end: a sum over tokenisations."""
        if ended:
            return sum(self._of((*each, 1)) for each in self.toy.spellings(text))
        longer = len(text) - 1
        found = 1.0 if not text else 0.0
        for place in range(longer + 1):  # the last token begins here and ends at the end, or beyond
            for each in self.toy.spellings(text[:place]):
                for token, piece in enumerate(self.toy.pieces):
                    if token > 1 and piece.startswith(text[place:]) and text[place:]:
                        found += self._of((*each, token))
        return found

    def _of(self, tokens: Tokens) -> float:
        """The probability of tokens, with that of the document start shared out."""
        found = 1.0
        for place, token in enumerate(tokens):
            own = self.toy.after((0, *tokens[:place]))
            found *= own[token] / own[1:].sum()
        return found

    def _prompt_ids(self, prompt: str | bytes) -> np.ndarray:
        data = prompt.encode() if isinstance(prompt, str) else prompt
        return np.array([0, *next(self.toy.spellings(data), ())])

    def _states(self, rows: int) -> Toy:
        toy = self.toy
        return Toy(toy.seed, toy.pieces[2:], rows, never=toy.never, sharpness=toy.sharpness)


class _InOrder:
    """States that give the probabilities of some tokens, in an order, and can be copied."""

    def __init__(self, toy: Toy, order: np.ndarray):
        self._toy, self._order = toy, order

    def start(self, prefixes: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
        return self._toy.start(prefixes, rows)[:, self._order]

    def extend(self, sources: np.ndarray, targets: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return self._toy.extend(sources, targets, tokens)[:, self._order]

    def copy(self, sources: np.ndarray, targets: np.ndarray) -> None:
        texts = [self._toy.texts[row] for row in sources]
        for row, text in zip(targets, texts, strict=True):
            self._toy.texts[row] = text

    def keep(self, rows: np.ndarray) -> None:
        self._toy.keep(rows)
