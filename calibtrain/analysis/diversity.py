"""Diversity of a set of texts, such as the hypotheses of a beam or the samples of a prompt.

References:
    Li et al. (2016), A Diversity-Promoting Objective Function for Neural Conversation Models
        (distinct n-grams).
    Zhu et al. (2018), Texygen: A Benchmarking Platform for Text Generation Models (self-BLEU).
"""

import itertools
from collections.abc import Hashable, Sequence
from typing import Any

from calibtrain.generation.similarity import sacrebleu_metrics


def distinct_ngrams(texts: Sequence[Sequence[Hashable]], n: int) -> float:
    """Returns the number of distinct n-grams of all texts, divided by the number of n-grams.

    1 means that none occurs twice. The share falls with the amount of text, so that only sets of
    about the same size compare. NaN where no text has n elements.

    Args:
        texts: sequences of words, characters, tokens or bytes. Tokens of different vocabularies do
            not compare.
        n: elements of an n-gram, at least 1.

    Raises:
        ValueError: for n below 1.

    Example:
        >>> distinct_ngrams(["the cat sat".split(), "the cat ran".split()], 2)
        0.75
    """
    if n < 1:
        raise ValueError(f"n: {n!r}: must be at least 1")
    ngrams = [tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else float("nan")


def self_bleu(texts: Sequence[str]) -> float:
    """Returns the mean BLEU of each text against all others as references, from 0 to 100.

    100 means that every text occurs twice. BLEU is sacreBLEU's for sentences, as in
    `generation.similarity.bleu`, with many references. NaN for less than two texts.

    Raises:
        UserError: where sacreBLEU is not installed.

    Example:
        >>> texts = ["the cat sat on a mat", "the cat sat on a hat", "the dog ran after a hat"]
        >>> round(self_bleu([texts[0], texts[0]]), 1), round(self_bleu(texts), 1)
        (100.0, 59.3)
    """
    if len(texts) < 2:
        return float("nan")
    scorer = sacrebleu_metrics().BLEU(effective_order=True)
    others = [[*texts[:i], *texts[i + 1 :]] for i in range(len(texts))]
    scores = [
        scorer.sentence_score(text, rest).score for text, rest in zip(texts, others, strict=True)
    ]
    return sum(scores) / len(scores)


def first_divergences(texts: Sequence[Sequence[Any]]) -> list[int]:
    """Returns the positions at which two of the texts first differ, each once, in order.

    Their number says at how many places the set branches. Hypotheses that differ in their last
    words alone have few of them, close to the end; those that differ from the beginning on have 0
    among them. A text that another one begins with differs from it where it ends; equal texts do
    not differ.

    Args:
        texts: sequences of comparable elements: characters, bytes, words or tokens.

    Example:
        >>> first_divergences([b"in the beginning", b"in the end", b"in a way", b"in the end"])
        [3, 7]
    """
    # Among sorted texts, what two have in common is the least that neighbours between them have.
    order = sorted({tuple(text) for text in texts})
    found = set()
    for first, second in itertools.pairwise(order):
        same = (a == b for a, b in zip(first, second, strict=False))
        found.add(sum(1 for _ in itertools.takewhile(bool, same)))
    return sorted(found)
