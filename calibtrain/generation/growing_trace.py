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
        self._columns = {name: getattr(prompt, name) for name in _COLUMNS}
        self._pieces, self._repeats = list(prompt.pieces), prompt.repeats
        self._loop = LoopWatch()
        self._loop.read(prompt.tokens)
        self._new: list[Drawn] = []

    def add(self, drawn: Drawn) -> None:
        """Adds tokens that were drawn for the text, one row of `Decoder.advance`."""
        self._new.append(drawn)

    @property
    def whole(self) -> TokenTrace:
        """The trace so far."""
        if self._new:
            new = [{**part._asdict(), **part.statistics._asdict()} for part in self._new]
            self._columns = {
                name: np.concatenate([known, *(part[name] for part in new)])
                for name, known in self._columns.items()
            }
            tokens = self._columns["tokens"][len(self._pieces) :]
            self._pieces += [self._vocabulary[token] for token in tokens.tolist()]
            self._repeats = np.concatenate([self._repeats, self._loop.read(tokens)])
            self._new = []
        return TokenTrace(
            text=self._number,
            pieces=tuple(self._pieces),
            source=np.where(np.arange(len(self._pieces)) < self._prompt, PROMPT, GENERATED),
            repeats=self._repeats,
            **self._columns,
        )
