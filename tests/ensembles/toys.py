"""Models of tiny vocabularies whose probabilities of every text are known."""

from collections.abc import Iterator, Sequence

import numpy as np

Tokens = tuple[int, ...]


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
        """Of tokens after the document start."""
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
