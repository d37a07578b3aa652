"""Measures of agreement between samples: the published formulas, and what they must hold."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibtrain.analysis.answers import extraction_of, letter, number
from calibtrain.analysis.consistency import (
    answer_consistency,
    cocoa,
    degree_uncertainty,
    eccentricity,
    eigenvalue_uncertainty,
    held_out_agreement,
    similarity_matrix,
)
from calibtrain.errors import UserError
from calibtrain.generation.similarity import UTILITIES
from calibtrain.metrics.ranking import prediction_rejection_ratio


def of_counts(*counts: int, without: int = 0) -> list[str | None]:
    """Returns answers with these counts."""
    answers = [str(i) for i, count in enumerate(counts) for _ in range(count)]
    return [*answers, *[None] * without]


@pytest.mark.parametrize(
    ("counts", "agreement", "entropy", "fsd"),
    [
        ((40,), 1.0, 1.0, 1.0),
        ((20, 20), 0.5, 0.0, 0.0),
        ((3, 1), 0.75, 1 - (2 - 0.75 * math.log2(3)), 0.5),
        ((2, 1, 1), 0.5, 1 - 1.5 / math.log2(3), 0.25),
        ((20, *[1] * 20), 0.5, 1 - (0.5 + 0.5 * math.log2(40)) / math.log2(21), 0.475),
    ],
)
def test_measures_of_counts_are_the_published_formulas(counts, agreement, entropy, fsd):
    found = answer_consistency(of_counts(*counts))
    assert found.agreement == pytest.approx(agreement)
    assert found.entropy == pytest.approx(entropy)
    assert found.fsd == pytest.approx(fsd)


def test_entropy_by_samples_is_monotone_where_the_published_one_is_not():
    halves, spread = (
        answer_consistency(of_counts(*counts)) for counts in ((20, 20), [20, *[1] * 20])
    )
    assert halves.entropy < spread.entropy  # half of the samples agree on a second answer
    assert halves.entropy_by_samples > spread.entropy_by_samples


def test_samples_without_an_answer_lower_agreement_and_are_no_answer():
    found = answer_consistency(of_counts(1, without=9))
    assert (found.agreement, found.fsd, found.without_answer) == (0.1, 0.1, 9)
    assert found.answers == [("0", 1)]


def test_nothing_is_defined_where_no_sample_has_an_answer():
    found = answer_consistency([None] * 7)
    assert (found.samples, found.without_answer, found.answers) == (7, 7, [])
    assert {found.agreement, found.entropy, found.fsd, found.held_out} == {None}
    assert found.entropy_by_samples is None


@given(st.lists(st.sampled_from("ab"), min_size=2, max_size=7))
def test_held_out_agreement_is_the_mean_over_all_halves(answers):
    n = len(answers)
    shares = []
    for chosen in itertools.combinations(range(n), n // 2):
        halves = [answers[i] for i in chosen], [answers[i] for i in range(n) if i not in chosen]
        for first, second in (halves, halves[::-1]):
            counts = Counter(first)
            tied = [each for each in counts if counts[each] == max(counts.values())]
            shares.append(np.mean([second.count(each) / len(second) for each in tied]))
    found = held_out_agreement(answers, splits=4000)
    assert found == pytest.approx(np.mean(shares), abs=0.04)


def test_held_out_agreement_of_guesses_is_their_probability_and_agreement_is_above_it():
    rng = np.random.default_rng(0)
    draws = rng.integers(0, 10, (200, 40)).astype(str).tolist()
    found = [answer_consistency(each) for each in draws]
    held_out = [each.held_out for each in found]
    error = 3 * np.std(held_out) / math.sqrt(len(held_out))
    assert np.mean(held_out) == pytest.approx(0.1, abs=error)
    assert np.mean([each.agreement for each in found]) > 0.15


def test_measures_of_similarity_count_meanings():
    groups = np.kron(np.eye(3), np.ones((2, 2)))  # three meanings, two texts each
    assert eigenvalue_uncertainty(groups) == pytest.approx(3)
    assert degree_uncertainty(groups) == pytest.approx(1 - 1 / 3)
    assert eccentricity(groups) > eccentricity(np.kron(np.eye(2), np.ones((3, 3)))) > 0


@pytest.mark.parametrize("name", sorted(UTILITIES))
def test_a_matrix_of_similarities_is_symmetric_and_equal_texts_are_alike(name):
    texts = ["in the beginning", "in the end", "", "in the beginning"]
    found = similarity_matrix(texts, UTILITIES[name])
    np.testing.assert_allclose(found, found.T)
    np.testing.assert_allclose(np.diag(found), 1)
    assert found[0, 3] == 1
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-9


def test_cocoa_is_nothing_where_all_samples_are_alike():
    assert cocoa(12.0, np.ones(3)) == 0
    with pytest.raises(ValueError, match="no other sample"):
        cocoa(12.0, np.zeros(0))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("= 3.50", "3.5"),
        ("3,5", "5"),
        ("12,345 men", "12345"),
        ("1e3", "1000"),
        ("−4", "-4"),
        ("0", "0"),
        ("zero", None),
        ("", None),
        ("in 1611.", "1611"),
        ("1e999", "1E+999"),
    ],
)
def test_a_number_has_one_spelling(text, found):
    assert number(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("B", "B"),
        ("b.", "B"),
        ("(c) the sea", "C"),
        ("a sea", None),
        ("Answer: D, not A", "D"),
        ("It is B", "B"),
        ("", None),
        ("abc", None),
        ("J", None),
    ],
)
def test_a_letter_is_a_choice_and_not_an_article(text, found):
    assert letter(text) == found


@pytest.mark.parametrize("name", ["words", "regex:", "regex:("])
def test_an_unknown_way_to_find_an_answer_is_refused_in_one_line(name):
    with pytest.raises(UserError, match="extract: ") as refused:
        extraction_of(name)
    assert "\n" not in str(refused.value)


def test_rejection_by_quality_gains_everything_and_by_one_confidence_nothing():
    quality = np.array([1, 0, 1, 1, 0, 1])
    assert prediction_rejection_ratio(quality, quality) == pytest.approx(1)
    assert prediction_rejection_ratio(np.ones(6), quality) == pytest.approx(0)
    orders = itertools.permutations(range(6))
    mean = np.mean([prediction_rejection_ratio(order, quality) for order in orders])
    assert mean == pytest.approx(0, abs=1e-12)
