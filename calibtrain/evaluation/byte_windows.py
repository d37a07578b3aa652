"""Windows of bytes: the text of the token windows (`data.batches.windows`), read byte by byte.

Of whole documents they score what those windows score, after the same context, and so every byte
and every end exactly once; of a sample (`data.batches.sample`), likewise every byte of its
stretches. A window begins with tokens as the tokenizer gives them. Where a token ends depends on
the text to come, so these tokens end `warm_up` bytes before the first scored byte, and the bytes
between are read without being scored.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from calibtrain.data.batches.sample import Stretch, choose_stretches
from calibtrain.data.batches.store import TokenStore
from calibtrain.data.batches.windows import plan_windows
from calibtrain.data.corpora.documents import END
from calibtrain.evaluation.word_spelling import Words, cut_words

WARM_UP = 32
"""Bytes: two of the longest pieces that SentencePiece makes by default."""


@dataclasses.dataclass(frozen=True)
class ByteWindow:
    """A stretch of a document.

    Attributes:
        document: index in the store.
        prefix: tokens that it begins with, at least one.
        symbols: the bytes that follow, and `END` where the document ends.
        scored_from: number of symbols that are read first without being scored.
        before: bytes of the document before the first symbol.
        words: the words that begin where this window scores, as indices into the symbols; None in
            windows that were not planned by words.
    """

    document: int
    prefix: Int[np.ndarray, " tokens"]
    symbols: Int[np.ndarray, " symbols"]
    scored_from: int
    before: int = 0
    words: Words | None = None


def plan_byte_windows(
    store: TokenStore,
    piece_bytes: Sequence[bytes],
    *,
    context: int,
    limit: int | None = None,
    warm_up: int = WARM_UP,
) -> tuple[tuple[Stretch, ...], list[ByteWindow]]:
    """Returns what is scored of which documents, and the windows, the longest first.

    Args:
        store: tokens of a split.
        piece_bytes: the bytes that each token stands for.
        context: tokens of a window, as in `plan_windows`.
        limit: how many bytes of text; None means all.
        warm_up: bytes that are read before the first scored one, where the window has them.
    """
    stretches = choose_stretches(store, limit)
    return stretches, _windows_over(store, piece_bytes, stretches, context, warm_up)


def _windows_over(
    store: TokenStore,
    piece_bytes: Sequence[bytes],
    stretches: Sequence[Stretch],
    context: int,
    warm_up: int,
) -> list[ByteWindow]:
    windows = []
    for document, start, stop in stretches:
        ids = store.document(document)
        # symbols before each id: document start stands for none, document end for one
        before = np.concatenate([[0], np.cumsum(store.byte_lengths[ids[:-1]])])
        symbols = _symbols(store, piece_bytes, document)
        end = stop + (stop == len(symbols) - 1)
        # the slots that predict a token with a scored byte, or the end
        first_slot = int(np.searchsorted(before[1:], start, side="right")) - 1 if start else 0
        slots = int(np.searchsorted(before[1:], end, side="left")) if end == stop else len(ids) - 1
        for window in plan_windows(slots, context, document, first_slot):
            scored = max(start, int(before[window.scored_from + 1]))
            given = window.start + 1
            if scored - warm_up > before[given]:
                given = int(np.searchsorted(before, scored - warm_up, side="right")) - 1
            last = int(before[window.end + 1]) if window.end + 1 < len(ids) else len(symbols)
            first = int(before[given])
            windows.append(
                ByteWindow(
                    document,
                    np.asarray(ids[window.start : given], np.int32),
                    symbols[first : min(last, end)],
                    scored - first,
                    first,
                )
            )
    windows.sort(key=lambda window: -len(window.symbols))
    return windows


def plan_word_windows(
    store: TokenStore,
    piece_bytes: Sequence[bytes],
    *,
    context: int,
    limit: int | None = None,
    warm_up: int = WARM_UP,
) -> tuple[tuple[Stretch, ...], list[ByteWindow]]:
    """Returns stretches and windows in which every word is scored once, where it begins.

    Stretches hold whole words. Windows go on to the end of their last word and one symbol further,
    which shows that it ended. Arguments as for `plan_byte_windows`.
    """
    chosen = choose_stretches(store, limit)
    texts = {each.document: _symbols(store, piece_bytes, each.document) for each in chosen}
    words = {document: cut_words(symbols) for document, symbols in texts.items()}
    stretches = [_whole_words(each, words[each.document]) for each in chosen]
    found = []
    for window in _windows_over(
        store, piece_bytes, [each for each in stretches if each is not None], context, warm_up
    ):
        of_document, symbols = words[window.document], texts[window.document]
        scored, last = window.before + window.scored_from, window.before + len(window.symbols)
        here = (of_document.start >= scored) & (of_document.start < last)
        if here.any():
            start, stop, known = (column[here] for column in of_document)
            mine = Words(start - window.before, stop - window.before, known)
            read = symbols[window.before : stop[-1] + 1]
            found.append(dataclasses.replace(window, symbols=read, words=mine))
    found.sort(key=lambda window: -len(window.symbols))
    return tuple(each for each in stretches if each is not None), found


def _whole_words(stretch: Stretch, words: Words) -> Stretch | None:
    """The words that begin in a stretch, as one; None where none does."""
    size = int(words.stop[-1]) - 1  # bytes of the document
    to = stretch.stop + (stretch.stop == size)
    begin = np.flatnonzero((words.start >= stretch.start) & (words.start < to))
    if not len(begin):
        return None
    start, stop = int(words.start[begin[0]]), int(words.stop[begin[-1]])
    return Stretch(stretch.document, start, min(stop, size))


def _symbols(
    store: TokenStore, piece_bytes: Sequence[bytes], document: int
) -> Int[np.ndarray, " symbols"]:
    """The bytes of a document, and its end."""
    text = b"".join(piece_bytes[index] for index in store.document(document))
    return np.append(np.frombuffer(text, np.uint8).astype(np.int64), END)
