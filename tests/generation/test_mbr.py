"""Minimum Bayes risk decoding: against brute force, sacreBLEU and definitions."""

import doctest
import functools
import random

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibtrain.generation import mbr, similarity
from calibtrain.generation.mbr import agreement, choose
from calibtrain.generation.similarity import UTILITIES, edit_similarity, token_f1

sacrebleu = pytest.importorskip("sacrebleu")

SAMPLES = [
    "In the beginning God created the heaven and the earth.",
    "In the beginning God created the heaven, and the sea.",
    "And the earth was without form, and void;",
    "In the beginning was the Word.",
    "In the beginning God created the heaven and the earth.",
    "",
]
short_texts = st.text("ab c", max_size=8)


@hypothesis.settings(max_examples=40)
@given(st.lists(short_texts, min_size=1, max_size=6), st.lists(short_texts, max_size=4))
def test_the_choice_is_that_of_brute_force(samples: list[str], others: list[str]) -> None:
    for candidates in filter(None, (samples, others)):
        for utility in (token_f1, edit_similarity):
            found = choose(samples, utility, candidates)
            means = [
                np.mean([utility(text, [sample])[0] for sample in samples]) for text in candidates
            ]
            np.testing.assert_allclose(found.expected_utilities, means, rtol=1e-12, atol=1e-12)
            assert means[found.index] == pytest.approx(max(means), rel=1e-12)
            assert found.text == candidates[found.index]


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("chrf", lambda text, other: sacrebleu.sentence_chrf(text, [other]).score),
        ("bleu", lambda text, other: sacrebleu.sentence_bleu(text, [other]).score),
    ],
)
def test_chrf_and_bleu_are_those_of_sacrebleu(name: str, score: object) -> None:
    assert callable(score)
    means = [np.mean([score(text, other) for other in SAMPLES]) for text in SAMPLES]
    found = choose(SAMPLES, name)
    np.testing.assert_allclose(found.expected_utilities, means, rtol=1e-12)
    assert found.index == int(np.argmax(np.round(means, 9)))


@given(short_texts, short_texts)
def test_edit_similarity_is_that_of_the_levenshtein_distance(first: str, second: str) -> None:
    @functools.cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(
            distance(i - 1, j) + 1,
            distance(i, j - 1) + 1,
            distance(i - 1, j - 1) + (first[i - 1] != second[j - 1]),
        )

    longer = max(len(first), len(second))
    share = distance(len(first), len(second)) / longer if longer else 0.0
    # a longer reference beside it changes nothing
    found = edit_similarity(first, [second, "c" * 12])
    assert found[0] == pytest.approx(100 * (1 - share))


@given(st.lists(short_texts, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_the_samples_does_not_matter_to_the_last_bit(
    samples: list[str], shuffling: random.Random
) -> None:
    shuffled = list(samples)
    shuffling.shuffle(shuffled)
    for utility in (token_f1, edit_similarity):
        first, second = (choose(each, utility, samples) for each in (samples, shuffled))
        assert first.index == second.index
        assert first.expected_utilities.tolist() == second.expected_utilities.tolist()


def test_of_equal_candidates_the_first_is_chosen() -> None:
    assert choose(["a b", "b a", "c"], "token-f1").index == 0
    assert choose(["c", "b a", "a b"], "token-f1").index == 1
    assert choose(["x", "y", "z"], "edit").index == 0


def test_repeated_samples_are_compared_once_and_count_each_time() -> None:
    found = choose(["a", "a", "a", "b b", "b b c"], "token-f1")
    assert found.text == "a"
    assert found.comparisons == 9


def test_agreement_compares_choices_and_what_they_are_worth_to_the_other() -> None:
    prompts = [SAMPLES, ["a b c", "a b d", "a x d"], ["b a", "a b", "ab"]]
    found = agreement(prompts)
    assert found.names == ("chrf", "bleu", "token-f1", "jaccard", "edit")
    choices = {name: [choose(samples, name).text for samples in prompts] for name in found.names}
    for row, first in enumerate(found.names):
        for column, second in enumerate(found.names):
            pairs = zip(choices[first], choices[second], strict=True)
            assert found.same[row, column] == pytest.approx(np.mean([a == b for a, b in pairs]))
    assert np.diag(found.kept).tolist() == [1.0] * 5
    assert (found.kept <= 1).all()
    assert found.distinct == pytest.approx((5 + 3 + 3) / 3)
    assert all(seconds > 0 for seconds in found.seconds)


def test_what_cannot_be_chosen_from_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^samples: are empty"):
        choose([], "edit")
    with pytest.raises(ValueError, match=r"^candidates: are empty"):
        choose(["a"], "edit", [])
    with pytest.raises(ValueError, match=r"^utility: 'bert': must be one of chrf, bleu, token-f1"):
        choose(["a"], "bert")
    with pytest.raises(ValueError, match=r"^prompts: are empty"):
        agreement([], UTILITIES)


def test_the_examples_run() -> None:
    for module in (mbr, similarity):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed
