"""Words: maximal runs of bytes that are not white space, with the white space that follows.

The symbols of a document, its bytes and its end, are cut into words without remainder:

- white space at the beginning of a document is a word of its own;
- the end of the document belongs to the last word (of an empty document it is the only one);
- a word of more than `LONGEST` symbols is cut after each `LONGEST`-th, and what follows a cut is
  treated as the beginning of a document. So there are finitely many possible words, also in a
  script without spaces.

White space is that of ASCII: space, \\t, \\n, \\v, \\f, \\r.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from calibtrain.data.corpora.documents import END, SYMBOLS

LONGEST = 32
"""Symbols."""
WORD_END = SYMBOLS
"""The choice "the word is over, and another one follows"; the other choices are the symbols."""

_WHITE = np.isin(np.arange(SYMBOLS), list(b" \t\n\v\f\r"))
_BEGINS = ~_WHITE & (np.arange(SYMBOLS) != END)
"""Symbols that begin another word after white space."""


class Words(NamedTuple):
    """The words of a document, in order.

    Attributes:
        start: index of the first symbol of each.
        stop: index after its last symbol.
        known: whether its first symbol is already known to be neither white space nor the end:
            the word before it ended because another word begins.
    """

    start: Int[np.ndarray, " words"]
    stop: Int[np.ndarray, " words"]
    known: Bool[np.ndarray, " words"]


def cut_words(symbols: Int[np.ndarray, " symbols"]) -> Words:
    """The words of a document's symbols, of which `END` is the last."""
    begins = _BEGINS[symbols[1:]] & _WHITE[symbols[:-1]]
    maximal = np.concatenate([[0], np.flatnonzero(begins) + 1, [len(symbols)]])
    start = np.concatenate(
        [np.arange(*stretch, LONGEST) for stretch in itertools.pairwise(maximal)]
    )
    stop = np.append(start[1:], len(symbols))
    known = np.append(False, stop[:-1] - start[:-1] < LONGEST)
    return Words(start, stop, known)


class PartialWords(NamedTuple):
    """Words of which the first symbols have been read, side by side.

    Attributes:
        length: symbols read.
        white: whether the last of them is white space.
        known: as in `Words`.
    """

    length: Int[np.ndarray, " words"]
    white: Bool[np.ndarray, " words"]
    known: Bool[np.ndarray, " words"]

    @classmethod
    def empty(cls, known: Bool[np.ndarray, " words"]) -> "PartialWords":
        """Words of which nothing has been read."""
        return cls(np.zeros(len(known), np.int64), np.zeros(len(known), bool), known)

    def read(self, symbols: Int[np.ndarray, " words"]) -> "PartialWords":
        """The words with one more symbol each."""
        return PartialWords(self.length + 1, _WHITE[symbols], self.known)

    def choice(self, symbols: Int[np.ndarray, " words"]) -> Int[np.ndarray, " words"]:
        """The choice that the next symbol of the text is: itself, or `WORD_END`."""
        return np.where(self.white & _BEGINS[symbols], WORD_END, symbols)

    def choices(
        self, probability: Float[np.ndarray, "words 257"]
    ) -> Float[np.ndarray, "words 258"]:
        """The probability of each way to go on, from those of the next symbol.

        After white space, all symbols that begin another word are one choice, `WORD_END`. So the
        product over a word's choices is the probability of the event "these symbols and no more of
        the word", and the product over the words of a document is that of the document.
        """
        found = np.column_stack([probability, np.zeros(len(probability))])
        another = np.where(_BEGINS, probability, 0.0).sum(axis=1)
        found[:, WORD_END] = np.where(self.white, another, 0.0)
        found[:, :SYMBOLS][self.white[:, None] & _BEGINS] = 0.0
        first = self.known & (self.length == 0)
        found[:, :SYMBOLS][first[:, None] & ~_BEGINS] = 0.0
        found[first] /= another[first, None]
        return found

    def is_last(self, choices: Int[np.ndarray, " words"]) -> Bool[np.ndarray, " words"]:
        """Whether a choice ends its word."""
        return (choices >= END) | (self.length + 1 == LONGEST)
