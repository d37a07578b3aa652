"""Words: maximal runs of bytes that are no white space, with the white space that follows.

The symbols of a document, its bytes and its end, are cut into words without remainder:

- white space that a document begins with is a word of its own;
- the end of the document belongs to the last word (of an empty document it is the only one);
- a word of more than `LONGEST` symbols is cut behind each `LONGEST`-th, and behind a cut all is as
  at the beginning of a document. So the words that may come are finitely many, also in a script
  without spaces.

White space is that of ASCII: space, \\t, \\n, \\v, \\f, \\r.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.data.corpora.documents import END, SYMBOLS

LONGEST = 32
"""Symbols."""
CLOSE = SYMBOLS
"""The choice "the word is over, and another one follows"; the others are the symbols."""

_WHITE = np.isin(np.arange(SYMBOLS), list(b" \t\n\v\f\r"))
_BEGINS = ~_WHITE & (np.arange(SYMBOLS) != END)
"""What another word begins with, behind white space."""


class Words(NamedTuple):
    """The words of a document, in order.

    Attributes:
        start: index of the first symbol of each.
        stop: behind the last one.
        told: whether the word before it ended where it did because this one begins: then it is
            known that the first symbol is neither white space nor the end.
    """

    start: Int[np.ndarray, " words"]
    stop: Int[np.ndarray, " words"]
    told: Bool[np.ndarray, " words"]


def cut_words(symbols: Int[np.ndarray, " symbols"]) -> Words:
    """The words of a document's symbols, of which `END` is the last."""
    begins = _BEGINS[symbols[1:]] & _WHITE[symbols[:-1]]
    maximal = np.concatenate([[0], np.flatnonzero(begins) + 1, [len(symbols)]])
    start = np.concatenate(
        [np.arange(*stretch, LONGEST) for stretch in itertools.pairwise(maximal)]
    )
    stop = np.append(start[1:], len(symbols))
    told = np.append(False, stop[:-1] - start[:-1] < LONGEST)
    return Words(start, stop, told)


class Begun(NamedTuple):
    """Words of which some symbols have been read, side by side.

    Attributes:
        length: symbols read.
        white: whether the last of them is white space.
        told: as of `Words`.
    """

    length: Int[np.ndarray, " words"]
    white: Bool[np.ndarray, " words"]
    told: Bool[np.ndarray, " words"]

    @classmethod
    def none(cls, told: Bool[np.ndarray, " words"]) -> "Begun":
        """Nothing is read yet."""
        return cls(np.zeros(len(told), np.int64), np.zeros(len(told), bool), told)

    def read(self, symbols: Int[np.ndarray, " words"]) -> "Begun":
        """With a symbol more each."""
        return Begun(self.length + 1, _WHITE[symbols], self.told)

    def choice(self, symbols: Int[np.ndarray, " words"]) -> Int[np.ndarray, " words"]:
        """What the next symbol of the text is for the word: itself, or the word's `CLOSE`."""
        return np.where(self.white & _BEGINS[symbols], CLOSE, symbols)

    def choices(
        self, probability: Float[np.ndarray, "words 257"]
    ) -> Float[np.ndarray, "words 258"]:
        """Probabilities of how each word goes on, from those of the next symbol.

        Behind white space all symbols that begin another word are one choice, `CLOSE`. So the
        product over a word's choices is the probability of the event "these symbols and no more of
        the word", and over the words of a document that of the document.
        """
        found = np.column_stack([probability, np.zeros(len(probability))])
        another = np.where(_BEGINS, probability, 0.0).sum(axis=1)
        found[:, CLOSE] = np.where(self.white, another, 0.0)
        found[:, :SYMBOLS][self.white[:, None] & _BEGINS] = 0.0
        first = self.told & (self.length == 0)
        found[:, :SYMBOLS][first[:, None] & ~_BEGINS] = 0.0
        found[first] /= another[first, None]
        return found

    def over(self, choices: Int[np.ndarray, " words"]) -> Bool[np.ndarray, " words"]:
        """Whether a choice is a word's last."""
        return (choices >= END) | (self.length + 1 == LONGEST)
