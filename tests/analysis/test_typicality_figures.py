"""Rank correlations against SciPy's, and typical text of a known source."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from calibtrain.analysis import typicality_figures as module
from calibtrain.analysis.typicality_figures import (
    MeasuredText,
    correlation_row,
    rank_correlation,
    typicality_row,
)


@settings(max_examples=8)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=12))
def test_the_correlation_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, float).T
    found = rank_correlation(x, y, np.arange(len(x)))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert found is None
        return
    assert found is not None
    assert found["estimate"] == pytest.approx(spearmanr(x, y).statistic)
    assert found["lower"] is not None
    assert found["upper"] is not None
    assert found["lower"] <= found["upper"]


def test_texts_of_one_document_are_drawn_together() -> None:
    """Copies of each text tell nothing more, so the interval stays as wide."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    y = x + rng.normal(size=30)
    once = rank_correlation(x, y, np.arange(30))
    copied = rank_correlation(np.tile(x, 5), np.tile(y, 5), np.tile(np.arange(30), 5))
    assert once is not None
    assert copied is not None
    assert copied["estimate"] == pytest.approx(once["estimate"])
    assert copied["lower"] == pytest.approx(once["lower"])


def test_samples_of_a_known_source_are_typical_and_its_most_probable_texts_are_not() -> None:
    law = np.array([0.7, 0.2, 0.1])
    entropy = -float(law @ np.log2(law))
    rng = np.random.default_rng(0)
    drawn = -np.log2(law)[rng.choice(3, p=law, size=(100, 50))].sum(1)
    texts = [MeasuredText(i, "", 50, float(bits), 50 * entropy) for i, bits in enumerate(drawn)]
    greedy = [MeasuredText(i, "", 50, -50 * float(np.log2(0.7)), 50 * entropy) for i in range(100)]
    sampled, best = typicality_row("ancestral", texts), typicality_row("greedy", greedy)
    assert sampled["deviation"]["lower"] < 0 < sampled["deviation"]["upper"]
    assert best["deviation"]["estimate"] == pytest.approx(-np.log2(0.7) - entropy)
    assert best["deviation"]["upper"] < 0


def test_quality_that_is_not_defined_is_left_out() -> None:
    texts = [
        MeasuredText(i, "", 10, 10.0 + i, 10.0, {"x": np.nan if i == 0 else -float(i)})
        for i in range(6)
    ]
    row = correlation_row("x", texts)
    assert row["texts"] == 5
    assert row["signed"]["estimate"] == pytest.approx(-1.0)
    assert correlation_row("other", texts) == {
        "quality": "other",
        "texts": 0,
        "signed": None,
        "size": None,
    }


def test_the_examples_are_right() -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
