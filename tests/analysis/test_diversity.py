"""Diversity of texts: against the definitions, pair by pair."""

import doctest
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibtrain.analysis import diversity
from calibtrain.analysis.diversity import distinct_ngrams, first_divergences, self_bleu

sacrebleu = pytest.importorskip("sacrebleu")


@given(st.lists(st.text("ab", max_size=6), max_size=6))
def test_first_divergences_are_those_of_all_pairs(texts: list[str]) -> None:
    pairs = [
        next(place for place in range(9) if a[place : place + 1] != b[place : place + 1])
        for a, b in itertools.combinations(set(texts), 2)
    ]
    assert first_divergences(texts) == sorted(set(pairs))


@given(st.lists(st.text("abc", min_size=3, max_size=8), min_size=1, max_size=5), st.integers(1, 3))
def test_texts_that_occur_twice_have_half_the_distinct_ngrams(texts: list[str], n: int) -> None:
    once, twice = distinct_ngrams(texts, n), distinct_ngrams(texts * 2, n)
    assert twice == pytest.approx(once / 2)
    assert 0 < once <= 1


def test_self_bleu_is_the_mean_of_sacrebleus_scores_with_many_references() -> None:
    texts = ["the cat sat on a mat", "the cat sat on a hat", "the dog ran after a hat", "a hat"]
    scores = [
        sacrebleu.sentence_bleu(text, [other for other in texts if other is not text]).score
        for text in texts
    ]
    assert self_bleu(texts) == pytest.approx(sum(scores) / 4)


def test_sets_that_have_no_diversity_to_speak_of_are_nan() -> None:
    assert math.isnan(self_bleu(["a"]))
    assert math.isnan(distinct_ngrams(["a", ""], 2))
    assert first_divergences(["same", "same"]) == []
    with pytest.raises(ValueError, match=r"^n: 0: must be at least 1"):
        distinct_ngrams(["a"], 0)


def test_the_examples_run() -> None:
    found = doctest.testmod(diversity)
    assert found.attempted
    assert not found.failed
