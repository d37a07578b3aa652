"""How similar two texts are, from 0 to 100: the utilities of MBR decoding.

chrF and BLEU are sacreBLEU's.

References:
    Popović (2015), chrF: character n-gram F-score for automatic MT evaluation.
    Post (2018), A Call for Clarity in Reporting BLEU Scores.
    Rajpurkar et al. (2016), SQuAD (token F1).
    Jaccard (1912), The Distribution of the Flora in the Alpine Zone.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

import numpy as np
from jaxtyping import Float

from calibtrain.errors import UserError

Utility = Callable[[str, Sequence[str]], Float[np.ndarray, " references"]]
"""A text and references -> how similar it is to each, from 0 to 100."""


def chrf(text: str, references: Sequence[str]) -> Float[np.ndarray, " references"]:
    """Returns the chrF of a text against each reference: sacreBLEU's, with its defaults.

    That is the F2 of character n-grams up to length 6, without white space.

    Raises:
        UserError: where sacreBLEU is not installed.

    Example:
        >>> chrf("the cat", ["the cat", "the bat"]).round(1).tolist()
        [100.0, 28.1]
    """
    scorer = sacrebleu_metrics().CHRF()
    return np.array([scorer.sentence_score(text, [each]).score for each in references])


def bleu(text: str, references: Sequence[str]) -> Float[np.ndarray, " references"]:
    """Returns the BLEU of a text against each reference: sacreBLEU's for sentences.

    Up to four-grams of its default tokenisation (13a), exponential smoothing, and only n-gram
    orders that the text has (`effective_order`).

    Raises:
        UserError: where sacreBLEU is not installed.

    Example:
        >>> bleu("the cat sat down", ["the cat sat down", "a cat sat up"]).round(1).tolist()
        [100.0, 31.9]
    """
    scorer = sacrebleu_metrics().BLEU(effective_order=True)
    return np.array([scorer.sentence_score(text, [each]).score for each in references])


def token_f1(text: str, references: Sequence[str]) -> Float[np.ndarray, " references"]:
    """Returns the F1 of the words of a text and of each reference, as multisets.

    Words are what white space separates, as they are written. Two texts without words are alike.

    Example:
        >>> token_f1("the cat the dog", ["the cat", "a bird"]).round(1).tolist()
        [66.7, 0.0]
    """
    words = Counter(text.split())
    found = []
    for reference in references:
        others = Counter(reference.split())
        total = words.total() + others.total()
        found.append(200 * (words & others).total() / total if total else 100.0)
    return np.array(found)


def jaccard(text: str, references: Sequence[str]) -> Float[np.ndarray, " references"]:
    """Returns the share of the words of both texts that both have, without regard to case.

    Words are what white space separates; each counts once. Two texts without words are alike.

    Example:
        >>> jaccard("The cat the dog", ["the cat", "a bird"]).round(1).tolist()
        [66.7, 0.0]
    """
    words = set(text.lower().split())
    found = []
    for reference in references:
        others = set(reference.lower().split())
        either = len(words | others)
        found.append(100 * len(words & others) / either if either else 100.0)
    return np.array(found)


def edit_similarity(text: str, references: Sequence[str]) -> Float[np.ndarray, " references"]:
    """Returns 100 (1 - d / n): d is the Levenshtein distance, n the length of the longer text.

    Both count characters (code points). Two empty texts are alike.

    Example:
        >>> edit_similarity("kitten", ["sitting", "kitten", ""]).round(1).tolist()
        [57.1, 100.0, 0.0]
    """
    lengths = np.array([len(reference) for reference in references])
    letters = np.full((len(references), lengths.max(initial=0)), -1, np.int64)
    for index, reference in enumerate(references):
        letters[index, : len(reference)] = [ord(letter) for letter in reference]
    # The table of distances, a row at a time, of all references side by side. An insertion comes
    # from the left in the same row: a running minimum, once each column's number is taken off.
    columns = np.arange(letters.shape[1] + 1)
    above = np.broadcast_to(columns, (len(references), len(columns)))
    for letter in text:
        row = above + 1
        changed = above[:, :-1] + (letters != ord(letter))
        row[:, 1:] = np.minimum(row[:, 1:], changed)
        above = np.minimum.accumulate(row - columns, axis=1) + columns
    distance = above[np.arange(len(references)), lengths]
    longer = np.maximum(lengths, len(text))
    share = np.divide(distance, longer, out=np.zeros(len(references)), where=longer > 0)
    return 100 * (1 - share)


UTILITIES: Mapping[str, Utility] = {
    "chrf": chrf,
    "bleu": bleu,
    "token-f1": token_f1,
    "jaccard": jaccard,
    "edit": edit_similarity,
}
"""The utilities by the names that users give."""


def sacrebleu_metrics() -> ModuleType:
    """Returns `sacrebleu.metrics`.

    Raises:
        UserError: where it is not installed.
    """
    try:
        return importlib.import_module("sacrebleu.metrics")
    except ImportError:
        raise UserError(
            "BLEU and chrF need the package sacrebleu; install it with: "
            "pip install 'calibtrain[generation]'"
        ) from None
