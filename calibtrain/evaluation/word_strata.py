"""Words cut by what is known before they come: into how many tokens the predicted word falls, and
how often it occurs in the training text.

The word is the greedy one, not the one that came. Cutting by the word that came selects by the
outcome: a rare word was improbable before it came, so that even a perfect model seems to be wrong
there (see `docs/evaluation.md`).
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int

from calibtrain.data.batches.token_store import frequency_deciles
from calibtrain.data.corpora.corpus import Corpus
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.evaluation.event_sums import ScoredEvents, Stratum
from calibtrain.evaluation.strata import DECILES
from calibtrain.evaluation.word_spelling import LONGEST

PIECES = "word_pieces"
FREQUENCY = "word_frequency"
MOST_BYTES = 20_000_000
"""How much of the training text words are counted in, at most."""


def word_strata(tokenizer: Tokenizer, counts: Mapping[bytes, int] | None) -> list[Stratum]:
    """Returns the strata of word events.

    Args:
        tokenizer: the model's.
        counts: how often each word occurs in the training text; None leaves its stratum out.
    """

    def pieces(words: Sequence[bytes]) -> Int[np.ndarray, " words"]:
        return (~kept_whole(tokenizer, words)).astype(np.int64)

    found = [Stratum(PIECES, ("whole", "split"), _of_words(pieces))]
    if counts:
        deciles = dict(zip(counts, frequency_deciles(np.array([*counts.values()])), strict=True))

        def frequency(words: Sequence[bytes]) -> Int[np.ndarray, " words"]:
            return np.array([deciles.get(word.lstrip(), DECILES) for word in words], np.int64)

        labels = (*map(str, range(1, DECILES + 1)), "never seen")
        found.append(Stratum(FREQUENCY, labels, _of_words(frequency)))
    return found


def strata_and_notes(
    tokenizer: Tokenizer, trained_on: Corpus | None
) -> tuple[list[Stratum], list[str]]:
    """Returns the strata of word events, and what is to be noted of them.

    Args:
        tokenizer: the model's.
        trained_on: the corpus that it was trained on; None where that is not here.
    """
    if trained_on is None:
        note = "words have no frequencies: the text that the run was trained on is not here"
        return word_strata(tokenizer, None), [note]
    words, read = training_words(trained_on)
    size = trained_on.provenance.splits["train"].bytes
    part = f"words are counted in {read:,} of {size:,} bytes of the training text"
    return word_strata(tokenizer, words), [part] if read < size else []


def _of_words(
    group: Callable[[Sequence[bytes]], Int[np.ndarray, " words"]],
) -> Callable[[ScoredEvents], Int[np.ndarray, " events"]]:
    """Returns the group of each event, from that of each distinct word."""

    def group_of(events: ScoredEvents) -> Int[np.ndarray, " events"]:
        assert events.word is not None
        words, place = np.unique(events.word, return_inverse=True)
        return group(words.tolist())[place]

    return group_of


def kept_whole(tokenizer: Tokenizer, words: Sequence[bytes]) -> Bool[np.ndarray, " words"]:
    """Returns whether no token of the tokenizer ends inside each word.

    Args:
        tokenizer: gives the tokens of a text.
        words: letters of words without white space behind them; the white space before, where there
            is any, belongs to what is encoded (pieces begin with it), but not to the word. A word
            that is not UTF-8 has no tokens of its own and is not whole; one without letters is.
    """
    texts = [_text(word) for word in words]
    encoded = tokenizer.encode_batch([text or "" for text in texts])
    whole = np.zeros(len(words), bool)
    for index, (word, text, ids) in enumerate(zip(words, texts, encoded, strict=True)):
        ends = np.cumsum(tokenizer.byte_lengths[ids])
        first = len(word) - len(word.lstrip())
        whole[index] = text is not None and not ((ends > first) & (ends < len(word))).any()
    return whole


def _text(word: bytes) -> str | None:
    try:
        return word.decode()
    except UnicodeDecodeError:
        return None


def word_counts(texts: Iterable[bytes]) -> Counter[bytes]:
    """Returns how often each word occurs, without white space, cut as `cut_words` cuts.

    Example:
        >>> word_counts([b"the cat and the dog"])[b"the"]
        2
    """
    counts: Counter[bytes] = Counter()
    for text in texts:
        words = text.split()
        counts.update(word for word in words if len(word) < LONGEST)
        for word in words:
            if len(word) >= LONGEST:
                counts.update(word[i : i + LONGEST] for i in range(0, len(word), LONGEST))
    return counts


def training_words(corpus: Corpus) -> tuple[Counter[bytes], int]:
    """Returns the words of the training text and how many bytes of it were read.

    Of a text of more than `MOST_BYTES`, every so-many-th document is read.
    """
    every = -(-corpus.provenance.splits["train"].bytes // MOST_BYTES)
    documents = itertools.islice(corpus.documents("train"), 0, None, max(1, every))
    size = 0

    def texts() -> Iterable[bytes]:
        nonlocal size
        for document in documents:
            text = document.text.encode()
            size += len(text)
            yield text

    return word_counts(texts()), size
