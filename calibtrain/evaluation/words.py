"""The next word: is the word that a model would spell, byte by byte, the one that comes?

The prediction is the greedy word: of all ways in which a word may go on (`word_spelling`), always
the most probable. Its confidence is the product of these choices' probabilities. As long as it
spells what the text says, it is read off the text's own distributions. Where it first differs, the
text's hypotheses are copied into a second lane, which goes on alone, and the text waits before its
next word until that is over.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.data.corpora.documents import END, SYMBOLS
from calibtrain.evaluation.byte_windows import ByteWindow, plan_word_windows
from calibtrain.evaluation.bytes import NEXT_BYTE, TextEvents
from calibtrain.evaluation.event_space import EventSpace
from calibtrain.evaluation.event_sums import COLUMNS, ScoredEvents
from calibtrain.evaluation.strata import POSITION
from calibtrain.evaluation.word_spelling import LONGEST, PartialWords, Words
from calibtrain.evaluation.word_strata import strata_and_notes
from calibtrain.generation.byte_beam import STAY, STOP

WORD_COLUMNS = ("nll", "confidence", "correct")
"""Words have neither entropy nor Brier score, which need the whole distribution over words."""
_NLL, _CONFIDENCE, _CORRECT = (COLUMNS.index(name) for name in WORD_COLUMNS)


class _Spelling:
    """A word being spelled in each window: the text's word, or the greedy one.

    Attributes:
        open: whether the word goes on.
        partial: what has been read of it.
        nll: of its choices so far, in nats.
        choices: what was chosen so far.
    """

    def __init__(self, texts: int):
        self.open = np.zeros(texts, bool)
        self.partial = PartialWords.empty(np.zeros(texts, bool))
        self.nll = np.zeros(texts)
        self.choices = np.zeros((texts, LONGEST), np.int64)

    def begin(self, at: Int[np.ndarray, " texts"], known: Bool[np.ndarray, " texts"]) -> None:
        """Begins words in some windows."""
        self.open[at], self.nll[at] = True, 0.0
        self._put(at, PartialWords.empty(known))

    def at(self, texts: Int[np.ndarray, " texts"]) -> PartialWords:
        """What has been read in some windows."""
        return PartialWords(*(column[texts] for column in self.partial))

    def choose(
        self,
        at: Int[np.ndarray, " texts"],
        choice: Int[np.ndarray, " texts"],
        choices: Float[np.ndarray, "texts 258"],
    ) -> None:
        """Goes on with a choice in some windows, given the probabilities of all choices."""
        with np.errstate(divide="ignore"):  # what no kept hypothesis allows is refused at the end
            self.nll[at] -= np.log(choices[np.arange(len(at)), choice])
        partial = self.at(at)
        self.choices[at, partial.length] = choice
        self.open[at] = ~partial.is_last(choice)
        self._put(at, partial.read(np.minimum(choice, SYMBOLS - 1)))

    def letters(self, text: int) -> bytes:
        """What has been chosen in a window, without the white space behind it and its ending."""
        chosen = self.choices[text, : self.partial.length[text]]
        return bytes(chosen[chosen < END].tolist()).rstrip()

    def _put(self, at: Int[np.ndarray, " some"], partial: PartialWords) -> None:
        for column, values in zip(self.partial, partial, strict=True):
            column[at] = values


class WordReader:
    """Scores words; a `bytes.WindowReader`. Lane texts + i is the second lane of window i."""

    def __init__(self, windows: Sequence[ByteWindow], texts: int):
        self._texts, self.symbols_read = texts, 0
        longest = max(len(window.symbols) for window in windows)
        self._symbols = np.full((texts, longest + 1), STOP, np.int64)
        self._words: list[Words] = []
        self._events: list[ScoredEvents] = []
        for lane, window in enumerate(windows):
            assert window.words is not None
            self._symbols[lane, : len(window.symbols)] = window.symbols
            self._words.append(window.words)
            count = len(window.words.start)
            self._events.append(
                ScoredEvents(
                    document=np.full(count, window.document),
                    values=np.full((count, len(COLUMNS)), np.nan),
                    before=window.before + window.words.start,
                    word=np.full(count, b"", object),
                )
            )
        self._count = np.zeros(texts, np.int64)
        self._count[: len(windows)] = [len(words.start) for words in self._words]
        self._place = np.zeros(texts, np.int64)
        self._next = np.zeros(texts, np.int64)  # the word that begins next
        # where that word begins; once the last one has begun, where it ends
        self._stop = np.zeros(texts, np.int64)
        self._stop[: len(windows)] = [words.start[0] for words in self._words]
        self._text, self._greedy = _Spelling(texts), _Spelling(texts)
        self._together = np.zeros(texts, bool)

    def next_symbols(
        self, probability: Float[np.ndarray, "lanes 257"]
    ) -> tuple[Int[np.ndarray, " lanes"], Int[np.ndarray, " lanes"]] | None:
        """Scores the words that end here, and returns what is read (see `bytes.WindowReader`)."""
        alone = np.full(self._texts, STOP)
        from_lanes = np.arange(2 * self._texts)
        self._spell(self._text.open | self._greedy.open, probability, alone, from_lanes)
        begin = (self._place == self._stop) & (self._next < self._count) & ~self._greedy.open
        self._begin(np.flatnonzero(begin))
        self._spell(begin, probability, alone, from_lanes)

        reading = self._place < self._stop
        waiting = ~reading & (self._next < self._count)
        now = self._symbols[np.arange(self._texts), self._place]
        text = np.where(reading, now, np.where(waiting, STAY, STOP))
        self._place += reading
        self.symbols_read += int(reading.sum())
        symbols = np.concatenate([text, alone])
        return None if (symbols == STOP).all() else (symbols, from_lanes)

    def events(self) -> list[ScoredEvents]:
        """What has been scored."""
        return self._events

    def _begin(self, at: Int[np.ndarray, " texts"]) -> None:
        """Begins the next word of some windows."""
        known = np.zeros(len(at), bool)
        for index, lane in enumerate(at):
            words, number = self._words[lane], self._next[lane]
            known[index], self._stop[lane] = words.known[number], words.stop[number]
        self._next[at] += 1
        self._together[at] = True
        self._text.begin(at, known)
        self._greedy.begin(at, known)

    def _spell(
        self,
        some: Bool[np.ndarray, " texts"],
        probability: Float[np.ndarray, "lanes 257"],
        alone: Int[np.ndarray, " texts"],
        from_lanes: Int[np.ndarray, " lanes"],
    ) -> None:
        """Makes the text's choice and the greedy one in some windows, where a word is open.

        Writes into `alone` what greedy words read next that differ from the text, and into
        `from_lanes` the lanes that they go on from.
        """
        actual = np.full(self._texts, -1)
        at = np.flatnonzero(some & self._text.open)
        now = self._symbols[at, self._place[at]]
        actual[at] = self._text.at(at).choice(now)
        choices = self._text.at(at).choices(probability[at])
        self._text.choose(at, actual[at], choices)

        at = np.flatnonzero(some & self._greedy.open)
        lane = np.where(self._together[at], at, self._texts + at)
        choices = self._greedy.at(at).choices(probability[lane])
        best = choices.argmax(axis=1)
        self._greedy.choose(at, best, choices)
        agree = self._together[at] & (best == actual[at])
        on = self._greedy.open[at] & ~agree
        alone[at[on]] = best[on]
        from_lanes[self._texts + at[on]] = lane[on]
        self._together[at] = agree

        for index in np.flatnonzero(some & ~self._text.open & ~self._greedy.open).tolist():
            number = int(self._next[index]) - 1
            values, words = self._events[index].values[number], self._events[index].word
            assert words is not None
            words[number] = self._before(index, number) + self._greedy.letters(index)
            values[_NLL] = self._text.nll[index]
            values[_CONFIDENCE] = np.exp(-self._greedy.nll[index])
            values[_CORRECT] = self._together[index]

    def _before(self, text: int, number: int) -> bytes:
        """The byte of white space before a word of a window; empty where there is none."""
        words, symbols = self._words[text], self._symbols[text]
        start = words.start[number]
        if start == 0:  # what precedes is in the tokens that the window begins with
            return b" " if words.known[number] else b""
        before = bytes([symbols[start - 1]])
        return before if before.isspace() else b""


NEXT_WORD = TextEvents(
    EventSpace(
        "word",
        (POSITION,),
        columns=WORD_COLUMNS,
        confidence="greedy",
        about={"longest_word": LONGEST},
    ),
    plan_word_windows,
    WordReader,
    lanes=2,
    strata=strata_and_notes,
)

TEXT_EVENTS: Mapping[str, TextEvents] = {
    events.space.name: events for events in (NEXT_BYTE, NEXT_WORD)
}
"""The kinds of events of text, by name."""
