"""The next word: is the word that a model would spell, byte by byte, the one that comes?

The prediction is the greedy word: of how a word may go on (`word_spelling`), always the most
probable. Its confidence is the product of these choices' probabilities. As long as it spells what
the text says, it is read off the text's own distributions; where it first differs, the text's
hypotheses are copied into a second lane, which goes on alone. A text waits before its next word
until that is over.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.data.corpora.documents import SYMBOLS
from calibtrain.evaluation.byte_windows import ByteWindow, plan_word_windows
from calibtrain.evaluation.bytes import EventSpace, TextScores, normalised
from calibtrain.evaluation.tally import COLUMNS
from calibtrain.evaluation.word_spelling import LONGEST, Begun, Words
from calibtrain.generation.byte_beam import STAY

HAS = ("nll", "confidence", "correct")
"""Of `tally.COLUMNS`: neither entropy nor Brier score, which need the whole distribution."""
_NLL, _CONFIDENCE, _CORRECT = (COLUMNS.index(name) for name in HAS)


class _Spelling:
    """A word being spelled in each window: its text, or the greedy one.

    Attributes:
        open: whether there is more to come.
        begun: what there is.
        nll: nats, of its choices so far.
    """

    def __init__(self, texts: int):
        self.open = np.zeros(texts, bool)
        self.begun = Begun.none(np.zeros(texts, bool))
        self.nll = np.zeros(texts)

    def begin(self, at: Int[np.ndarray, " texts"], told: Bool[np.ndarray, " texts"]) -> None:
        """Begin words."""
        self.open[at], self.nll[at] = True, 0.0
        self._put(at, Begun.none(told))

    def at(self, texts: Int[np.ndarray, " texts"]) -> Begun:
        """What there is of some."""
        return Begun(*(column[texts] for column in self.begun))

    def choose(
        self,
        at: Int[np.ndarray, " texts"],
        choice: Int[np.ndarray, " texts"],
        choices: Float[np.ndarray, "texts 258"],
    ) -> None:
        """Go on with a choice, of those that there are."""
        with np.errstate(divide="ignore"):  # what no kept hypothesis allows: refused at the end
            self.nll[at] -= np.log(choices[np.arange(len(at)), choice])
        begun = self.at(at)
        self.open[at] = ~begun.over(choice)
        self._put(at, begun.read(np.minimum(choice, SYMBOLS - 1)))

    def _put(self, at: Int[np.ndarray, " some"], begun: Begun) -> None:
        for column, values in zip(self.begun, begun, strict=True):
            column[at] = values


class WordReader:
    """Scores words; see `bytes.Reader`. Lane texts + i is the second one of window i."""

    def __init__(self, windows: Sequence[ByteWindow], texts: int):
        self._texts, self.done = texts, 0
        longest = max(len(window.symbols) for window in windows)
        self._symbols = np.full((texts, longest + 1), -1, np.int64)
        self._words: list[Words] = []
        self._scores: list[TextScores] = []
        for lane, window in enumerate(windows):
            assert window.words is not None
            self._symbols[lane, : len(window.symbols)] = window.symbols
            self._words.append(window.words)
            count = len(window.words.start)
            self._scores.append(
                TextScores(
                    np.full(count, window.document),
                    window.before + window.words.start,
                    np.full((count, len(COLUMNS)), np.nan),
                )
            )
        self._count = np.zeros(texts, np.int64)
        self._count[: len(windows)] = [len(words.start) for words in self._words]
        self._place = np.zeros(texts, np.int64)
        self._next = np.zeros(texts, np.int64)  # the word that begins next
        # where that is; when the last one has begun, where it ends
        self._stop = np.zeros(texts, np.int64)
        self._stop[: len(windows)] = [words.start[0] for words in self._words]
        self._text, self._greedy = _Spelling(texts), _Spelling(texts)
        self._together = np.zeros(texts, bool)

    def step(
        self, distribution: Float[np.ndarray, "lanes 257"]
    ) -> tuple[Int[np.ndarray, " lanes"], Int[np.ndarray, " lanes"]] | None:
        """As `bytes.Reader` says."""
        alone = np.full(self._texts, -1)
        origin = np.arange(2 * self._texts)
        self._spell(self._text.open | self._greedy.open, distribution, alone, origin)
        begin = (self._place == self._stop) & (self._next < self._count) & ~self._greedy.open
        self._begin(np.flatnonzero(begin))
        self._spell(begin, distribution, alone, origin)

        reading = self._place < self._stop
        waiting = ~reading & (self._next < self._count)
        now = self._symbols[np.arange(self._texts), self._place]
        text = np.where(reading, now, np.where(waiting, STAY, -1))
        self._place += reading
        self.done += int(reading.sum())
        symbols = np.concatenate([text, alone])
        return None if (symbols == -1).all() else (symbols, origin)

    def scores(self) -> list[TextScores]:
        """As `bytes.Reader` says."""
        return self._scores

    def _begin(self, at: Int[np.ndarray, " texts"]) -> None:
        """Begin the next word of some windows."""
        told = np.zeros(len(at), bool)
        for index, lane in enumerate(at):
            words, number = self._words[lane], self._next[lane]
            told[index], self._stop[lane] = words.told[number], words.stop[number]
        self._next[at] += 1
        self._together[at] = True
        self._text.begin(at, told)
        self._greedy.begin(at, told)

    def _spell(
        self,
        some: Bool[np.ndarray, " texts"],
        distribution: Float[np.ndarray, "lanes 257"],
        alone: Int[np.ndarray, " texts"],
        origin: Int[np.ndarray, " lanes"],
    ) -> None:
        """Make a choice of the text and a greedy one in some windows, where a word is open.

        Writes into `alone` what greedy words read next that differ from the text, and into `origin`
        where they go on from.
        """
        actual = np.full(self._texts, -1)
        at = np.flatnonzero(some & self._text.open)
        now = self._symbols[at, self._place[at]]
        actual[at] = self._text.at(at).choice(now)
        choices = self._text.at(at).choices(normalised(distribution[at]))
        self._text.choose(at, actual[at], choices)

        at = np.flatnonzero(some & self._greedy.open)
        lane = np.where(self._together[at], at, self._texts + at)
        choices = self._greedy.at(at).choices(normalised(distribution[lane]))
        best = choices.argmax(axis=1)
        self._greedy.choose(at, best, choices)
        same = self._together[at] & (best == actual[at])
        on = self._greedy.open[at] & ~same
        alone[at[on]] = best[on]
        origin[self._texts + at[on]] = lane[on]
        self._together[at] = same

        for index in np.flatnonzero(some & ~self._text.open & ~self._greedy.open):
            values = self._scores[index].values[self._next[index] - 1]
            values[_NLL] = self._text.nll[index]
            values[_CONFIDENCE] = np.exp(-self._greedy.nll[index])
            values[_CORRECT] = self._together[index]


NEXT_WORD = EventSpace(
    "word",
    plan_word_windows,
    WordReader,
    lanes=2,
    columns=HAS,
    confidence="greedy",
    about={"longest_word": LONGEST},
)
