"""Alignment of samples: the least edit distance, and shares that are counted by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibtrain.analysis.alignment import align, token_agreement, words
from calibtrain.generation.similarity import edit_similarity

TEXTS = st.text("abc", max_size=8)


def codes(text: str) -> np.ndarray:
    return np.array([ord(letter) for letter in text], int)


@given(TEXTS, TEXTS)
def test_an_alignment_costs_the_levenshtein_distance(first, second):
    places = align(codes(first), codes(second))
    kept = places[places >= 0]
    assert (np.diff(kept) > 0).all()
    replaced = sum(first[i] != second[j] for i, j in enumerate(places) if j >= 0)
    cost = replaced + (places < 0).sum() + len(second) - len(kept)
    longer = max(len(first), len(second))
    likeness = float(edit_similarity(first, [second])[0])
    assert cost == pytest.approx(longer * (1 - likeness / 100))


@given(TEXTS)
def test_a_text_is_aligned_with_itself(text):
    assert align(codes(text), codes(text)).tolist() == list(range(len(text)))


def test_agreement_at_a_token_is_the_share_of_the_other_samples():
    found = token_agreement([b"go up", b"go up", b"go on", b"up"], reference=0)
    assert found.inserted == [0, 0, 0, 0]
    assert found.agreement[:3, 0].tolist() == [2 / 3] * 3
    assert found.agreement[:, -1].tolist() == [2 / 3, 2 / 3, 0.0, 2 / 3]
    assert [row[0] for row in found.cells] == [103, 103, 103, None]
    assert np.isnan(found.agreement[3, 0])


def test_an_inserted_token_moves_nothing():
    found = token_agreement([list("abcd"), list("axbcd")], reference=0)
    assert found.agreement.tolist() == [[1.0] * 4] * 2
    assert found.inserted == [0, 1]


def test_one_sample_agrees_with_no_other_and_an_empty_one_has_no_token():
    assert np.isnan(token_agreement(["ab"], 0).agreement).all()
    found = token_agreement(["ab", ""], 0)
    assert found.cells[1] == [None, None]
    assert found.agreement[0].tolist() == [0.0, 0.0]
    assert np.isnan(found.agreement[1]).all()
    assert token_agreement(["", "ab"], 0).agreement.shape == (2, 0)


def test_scripts_without_spaces_have_a_word_a_letter():
    assert words("神は光あれ said he") == ["神", "は", "光", "あ", "れ", "said", "he"]
