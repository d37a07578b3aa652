"""The trace of a text while it is generated: its prompt's, and a row for each token drawn."""

from collections.abc import Sequence

import numpy as np

from calibtrain.generation.decoder import Drawn
from calibtrain.generation.loops import LoopWatch
from calibtrain.generation.statistics import TokenStatistics
from calibtrain.runs.traces import SOURCES, TokenTrace

PROMPT, GENERATED, _ = range(len(SOURCES))
_COLUMNS = ("tokens", "sampling_log_probability", "temperature", *TokenStatistics._fields)


class GrowingTrace:
    """The rows of a text's tokens so far; each token is looked at once."""

    def __init__(self, number: int, prompt: TokenTrace, pieces: Sequence[bytes]):
        """Args:
        number: of the text in its request.
        prompt: the trace of its prompt.
        pieces: the bytes of each vocabulary entry.
        """
        self._number, self._prompt, self._vocabulary = number, len(prompt), pieces
        # each with room for more tokens
        self._columns = {name: getattr(prompt, name) for name in (*_COLUMNS, "repeats")}
        self._pieces = list(prompt.pieces)
        self._loop = LoopWatch()
        self._loop.read(prompt.tokens)
        self._new: list[Drawn] = []

    def add(self, drawn: Drawn) -> None:
        """Adds tokens that were drawn for the text, one row of `Decoder.advance`."""
        self._new.append(drawn)

    @property
    def whole(self) -> TokenTrace:
        """The trace so far."""
        for drawn in self._new:
            new = {
                **drawn._asdict(),
                **drawn.statistics._asdict(),
                "repeats": self._loop.read(drawn.tokens),
            }
            count = len(self._pieces)
            for name, known in self._columns.items():
                self._columns[name] = _extended(known, count, new[name])
            self._pieces += [self._vocabulary[token] for token in drawn.tokens.tolist()]
        self._new = []
        count = len(self._pieces)
        return TokenTrace(
            text=self._number,
            pieces=tuple(self._pieces),
            source=np.where(np.arange(count) < self._prompt, PROMPT, GENERATED),
            **{name: column[:count] for name, column in self._columns.items()},
        )


def _extended(known: np.ndarray, count: int, new: np.ndarray) -> np.ndarray:
    """Returns an array whose first `count` entries are followed by new ones, and then by room.

    It is `known` itself where there is room; what was read of it before stays as it is.
    """
    end = count + len(new)
    if end > len(known):
        longer = np.empty((2 * end, *known.shape[1:]), known.dtype)
        longer[:count] = known[:count]
        known = longer
    known[count:end] = new
    return known
