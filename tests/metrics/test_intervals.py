"""Intervals cover what they say, whatever documents do; resamples are draws of documents."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from calibtrain.metrics import (
    bootstrap,
    bootstrap_difference,
    calibration_error_difference,
    calibration_error_interval,
    document_sums,
    document_tables,
    expected_calibration_error,
    student_half_width,
)
from calibtrain.metrics.calibration import table_error
from calibtrain.metrics.intervals import resampled_sums
from calibtrain.metrics.jackknife import student_figures


def mean(sums: Any) -> Any:
    return sums[..., 1] / sums[..., 0]


def corpus(rng: Any, sharpness: float = 1.0, effect: float = 0.3) -> tuple[Any, Any, Any]:
    """(confidence, correct, document) of 60 documents that are each harder or easier."""
    document = np.repeat(np.arange(60), rng.poisson(40, 60) + 1)
    logit = rng.normal(1, 1.5, len(document))
    right = 1 / (1 + np.exp(-logit - rng.normal(0, effect, 60)[document]))
    confidence = 1 / (1 + np.exp(-sharpness * logit))
    return confidence, (rng.random(len(document)) < right).astype(float), document


def population_ece(sharpness: float, effect: float) -> float:
    """Of a million tokens, in the same bins."""
    rng = np.random.default_rng(99)
    parts = [corpus(rng, sharpness, effect) for _ in range(400)]
    tables = [document_tables(c, y, np.zeros(len(c), int), 1)[0] for c, y, _ in parts]
    return float(table_error(np.sum(tables, axis=0)))


def test_document_tables_add_up_to_the_whole_and_keep_documents_apart() -> None:
    confidence, correct, document = corpus(np.random.default_rng(0))
    tables = document_tables(confidence, correct, document, 60)
    want = expected_calibration_error(confidence, correct)
    assert table_error(tables.sum(0)) == pytest.approx(want)
    one = document == 7
    want = expected_calibration_error(confidence[one], correct[one])
    assert table_error(tables[7]) == pytest.approx(want)
    sums = document_sums(np.stack([np.ones_like(correct), correct], axis=-1), document, 60)
    np.testing.assert_allclose(sums[:, 0], np.bincount(document))
    assert sums[3, 1] == correct[document == 3].sum()


def test_a_resample_is_as_many_documents_drawn_with_replacement() -> None:
    """How often each was drawn is multinomial: mean 1, variance 1 - 1/n, always n in all."""
    times = resampled_sums(np.eye(20), resamples=4000)
    np.testing.assert_array_equal(times, np.round(times))
    np.testing.assert_array_equal(times.sum(-1), 20)
    np.testing.assert_allclose(times.mean(0), 1, atol=0.08)
    np.testing.assert_allclose(times.var(0), 0.95, atol=0.12)


def test_the_interval_of_a_mean_is_that_of_the_central_limit_theorem() -> None:
    values = np.random.default_rng(0).normal(3, 2, 500)
    sums = np.stack([np.ones(500), values], axis=-1)
    half = 1.96 * values.std(ddof=1) / math.sqrt(500)
    for method in ("bca", "basic", "percentile"):
        found = bootstrap(sums, mean, resamples=4000, method=method)
        assert found.estimate == pytest.approx(values.mean())
        assert found.lower == pytest.approx(values.mean() - half, abs=0.1 * half)
        assert found.upper == pytest.approx(values.mean() + half, abs=0.1 * half)
        assert found.standard_error == pytest.approx(half / 1.96, rel=0.05)


def test_bca_equals_that_of_scipy() -> None:
    values = np.random.default_rng(1).exponential(1, 40)
    sums = np.stack([np.ones(40), values], axis=-1)
    mine = bootstrap(sums, mean, resamples=20_000)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    assert [mine.lower, mine.upper] == pytest.approx([theirs.low, theirs.high], abs=0.02)


@pytest.mark.parametrize("sharpness", [1.0, 1.5])
def test_the_interval_of_the_ece_covers_the_truth(sharpness: float) -> None:
    """Calibrated (the truth is 0) and over-confident; 200 corpora; 95 % within 4 sigma."""
    effect = 0.0 if sharpness == 1 else 0.3
    truth = 0.0 if sharpness == 1 else population_ece(sharpness, effect)
    covered = 0
    for seed in range(200):
        confidence, correct, document = corpus(np.random.default_rng(seed), sharpness, effect)
        tables = document_tables(confidence, correct, document, 60)
        found = calibration_error_interval(tables, resamples=300, seed=seed)
        covered += found.lower <= truth <= found.upper
    assert 0.95 * 200 - 4 * math.sqrt(200 * 0.05 * 0.95) < covered


def test_the_interval_of_a_difference_of_eces_covers_the_truth() -> None:
    """Between a calibrated model and one that is too sure, on the same documents."""
    truth = 0.0 - population_ece(1.5, 0.0)
    covered = 0
    for seed in range(100):
        first, second = (
            document_tables(*corpus(np.random.default_rng(seed), sharpness, 0.0), 60)
            for sharpness in (1.0, 1.5)
        )
        found = calibration_error_difference(first, second, resamples=200, seed=seed)
        covered += found.lower <= truth <= found.upper
    assert covered > 95 - 4 * math.sqrt(100 * 0.05 * 0.95)
    same = calibration_error_difference(first, first, resamples=50)
    assert same.lower <= 0 <= same.upper


def test_percentiles_of_the_ece_never_cover_a_calibrated_model() -> None:
    """Why the ECE has an interval of its own."""
    for seed in range(10):
        confidence, correct, document = corpus(np.random.default_rng(seed), effect=0.0)
        tables = document_tables(confidence, correct, document, 60)
        assert bootstrap(tables, table_error, resamples=200, method="percentile").lower > 0
        assert bootstrap(tables, table_error, resamples=200).bias > 0


def test_documents_that_agree_with_themselves_make_intervals_wider() -> None:
    """Every token of a document alike: as many observations as documents, not as tokens."""
    rng = np.random.default_rng(0)
    per_document = rng.random(50)
    values = np.repeat(per_document, 100)
    columns = np.stack([np.ones_like(values), values], axis=-1)
    by_document = document_sums(columns, np.repeat(np.arange(50), 100), 50)
    wide = bootstrap(by_document, mean)
    narrow = bootstrap(columns, mean, resamples=300)
    ratio = (wide.upper - wide.lower) / (narrow.upper - narrow.lower)
    assert ratio == pytest.approx(10, rel=0.15)


def test_two_models_are_compared_on_the_same_documents() -> None:
    """What makes a document hard for both falls out of the difference."""
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 5, 100)
    first, second = (
        np.stack([np.ones(100), hard + shift + rng.normal(0, 0.1, 100)], axis=-1)
        for shift in (1.0, 1.2)
    )
    found = bootstrap_difference(first, second, mean)
    assert found.estimate == pytest.approx(mean(first.sum(0)) - mean(second.sum(0)))
    assert found.upper - found.lower < 0.1
    assert found.lower < -0.2 < found.upper
    same = bootstrap_difference(first, first, mean)
    assert (same.lower, same.estimate, same.upper) == (0, 0, 0)


def test_the_same_seed_draws_the_same() -> None:
    sums = np.random.default_rng(0).random((30, 2))
    assert bootstrap(sums, mean, seed=4) == bootstrap(sums, mean, seed=4)
    assert bootstrap(sums, mean, seed=4) != bootstrap(sums, mean, seed=5)


def test_students_interval() -> None:
    values = [1.0, 2.0, 4.0]
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    assert student_half_width(values) == pytest.approx((high - low) / 2)
    assert student_half_width([1.0]) is None


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"sums": np.ones((1, 2))}, "sums"),
        ({"sums": np.array([[1, np.nan], [1, 1]])}, "sums"),
        ({"resamples": 1}, "resamples"),
        ({"level": 1.0}, "level"),
        ({"method": "bcb"}, "method"),
        ({"statistic": lambda sums: sums}, "statistic"),
    ],
)
def test_nonsense_is_refused_by_name(changes: dict[str, Any], name: str) -> None:
    arguments = {"sums": np.ones((3, 2)), "statistic": mean, **changes}
    with pytest.raises(ValueError, match=f"^{name}:"):
        bootstrap(**arguments)


def test_documents_that_do_not_exist_are_refused() -> None:
    for documents in (np.array([0, 2]), np.array([0, -1]), np.array([0])):
        with pytest.raises(ValueError, match=r"^documents:"):
            document_tables(np.full(2, 0.5), np.ones(2), documents, 2)


def test_a_figure_that_is_not_defined_without_some_document_has_no_interval() -> None:
    sums = np.array([[10.0, 0.0], [10.0, 0.0], [10.0, 4.0]])  # one document alone has any
    found = student_figures(
        sums,
        {
            "share": lambda s: s[:, 1] / s[:, 0],
            "inverse": lambda s: s[:, 0] / np.where(s[:, 1] > 0, s[:, 1], np.nan),
        },
    )
    assert set(found) == {"share"}


@pytest.mark.parametrize("documents", [2, 3, 4, 6])
def test_few_unequal_documents_have_intervals_around_their_estimate(documents: int) -> None:
    """However far out the quantiles lie: the ends are in order, and the estimate between them."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        events = np.round(rng.gamma(0.4, 500, documents) + 1)
        sums = np.stack([events, events * rng.gamma(20, 0.15, documents)], axis=-1)
        found = bootstrap(sums, lambda s: s[..., 1] / s[..., 0], method="expanded bca")
        assert found.lower <= found.estimate <= found.upper
        assert found.lower < found.upper
