"""Noise of gaps is the jackknife's; with one large gap the inverted test is Student's interval."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from calibtrain.metrics.calibration import table_error
from calibtrain.metrics.error_intervals import (
    equal_mass_tables,
    error_intervals,
    smooth_error_difference,
)
from calibtrain.metrics.intervals import bootstrap, expansion
from calibtrain.metrics.ordered import cumulative, equal_mass
from calibtrain.metrics.resampling import NoisyGaps, absolute_sum
from calibtrain.metrics.smooth import smooth_error

LEVEL = 0.95


def cells_of(confidence: np.ndarray, correct: np.ndarray, documents: int) -> np.ndarray:
    """Of documents of equally many events, 480 cells."""
    document = np.arange(len(confidence)) * documents // len(confidence)
    cell = np.minimum((confidence * 480).astype(int), 479)
    ones = np.ones_like(confidence)
    moments = [ones, confidence, correct, confidence**2, confidence * correct]
    size = documents * 480
    sums = [np.bincount(document * 480 + cell, values, size) for values in moments]
    return np.stack(sums, axis=-1).reshape(documents, 480, 5)


def test_equal_documents_are_expanded_as_students_t_and_unequal_ones_more() -> None:
    half = math.sqrt(12 / 11) * scipy.stats.t.ppf(0.975, 11) / scipy.stats.norm.ppf(0.975)
    assert expansion(np.full((12, 2), 7.0), LEVEL) == pytest.approx(half)
    assert expansion(np.ones((10**6, 1)), LEVEL) == pytest.approx(1, abs=1e-5)
    assert expansion(np.array([[1.0], [1.0], [1.0], [50.0]]), LEVEL) > expansion(
        np.ones((4, 1)), LEVEL
    )


def test_one_large_gap_has_students_interval() -> None:
    gaps = np.random.default_rng(0).normal(3, 1, 12)
    sums = np.stack([np.ones(12), gaps], axis=-1)
    found = NoisyGaps.of(sums, lambda s: s[:, [1]] / s[:, [0]], absolute_sum, draws=40_000)
    low, high = scipy.stats.ttest_1samp(gaps, 0).confidence_interval()
    by = math.sqrt(12 / 11)  # the jackknife's variance is unbiased here, and yet expanded
    middle, half = gaps.mean(), (high - low) / 2
    interval = found.interval()
    assert [interval.lower, interval.upper] == pytest.approx(
        [middle - by * half, middle + by * half], abs=0.03 * half
    )
    percentile = bootstrap(sums, lambda s: s[..., 1] / s[..., 0], method="expanded bca")
    assert percentile.upper - percentile.lower == pytest.approx(high - low, rel=0.12)


def test_noise_has_the_covariance_of_the_mean() -> None:
    rng = np.random.default_rng(1)
    values = rng.multivariate_normal([0, 0], [[2, 1], [1, 3]], 200)
    sums = np.column_stack([np.ones(200), values])
    found = NoisyGaps.of(sums, lambda s: s[:, 1:] / s[:, [0]], absolute_sum, draws=40_000)
    np.testing.assert_allclose(
        np.cov(found.noise.T), np.cov(values.T) / 200, rtol=0.05, atol=0.0005
    )


def test_bins_of_equal_mass_of_documents_add_up_to_those_of_the_whole() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.beta(2, 1, 3000)
    cells = cells_of(confidence, (rng.random(3000) < confidence) * 1.0, 30)
    whole = equal_mass(cumulative(cells.sum(0), np), np.arange(16) / 15, np)
    np.testing.assert_allclose(equal_mass_tables(cells, 15).sum(0), whole, atol=1e-9)


def test_a_bin_of_one_event_does_not_make_a_model_miscalibrated() -> None:
    """It cannot be told from one event that is right where half of its kind are."""
    rng = np.random.default_rng(3)
    confidence = np.append(np.full(3999, 0.9), 0.5)
    correct = np.append(rng.permutation(np.arange(3999) < 3599), True) * 1.0
    cells = cells_of(confidence, correct, 40)
    tables = cells[:, :, :3].reshape(40, 15, 32, 3).sum(2)
    found = error_intervals(cells, tables, sweep_bins=5)["maximum_calibration_error"]
    assert found.estimate == pytest.approx(0.5)
    assert found.lower == 0
    assert found.upper > 0.5


def test_errors_of_one_constant_confidence_are_one_error_with_one_interval() -> None:
    """One confidence, one gap: ECE of equal mass, L2, KS and the maximum are all its size."""
    rng = np.random.default_rng(4)
    correct = (rng.random(4000) < 0.6) * 1.0
    cells = cells_of(np.full(4000, 0.79), correct, 40)
    tables = cells[:, :, :3].reshape(40, 15, 32, 3).sum(2)
    found = error_intervals(cells, tables, sweep_bins=1)
    gap = float(table_error(tables.sum(0)))
    for name in ("ece_mass", "sweep_calibration_error", "kolmogorov_smirnov_error"):
        assert found[name].estimate == pytest.approx(gap)
        assert 0.15 < found[name].lower < gap < found[name].upper < 0.23
        assert found[name].upper == pytest.approx(found["debiased_calibration_error"].upper)
    average = found["average_calibration_error"]
    assert average.lower == pytest.approx(found["ece_mass"].lower, abs=0.002)


def test_many_documents_are_drawn_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No matrix of draws x documents: the noise is the sum of what parts of the documents add."""
    values = np.random.default_rng(6).normal(0, 2, 300)
    sums = np.column_stack([np.ones(300), values])
    monkeypatch.setattr("calibtrain.metrics.resampling.AT_ONCE", 8000 * 7)
    found = NoisyGaps.of(sums, lambda s: s[:, [1]] / s[:, [0]], absolute_sum, draws=8000)
    assert found.noise.std() == pytest.approx(values.std(ddof=1) / math.sqrt(300), rel=0.05)


def smooth_cells(sharpness: float, seed: int, documents: int = 20) -> np.ndarray:
    """Returns the cells of a model that is this much too sure; sharpness changes no event."""
    rng = np.random.default_rng(seed)
    size = 150 * documents
    logit = rng.normal(1, 1.5, size)
    correct = (rng.random(size) < scipy.special.expit(logit)) * 1.0
    return cells_of(scipy.special.expit(sharpness * logit), correct, documents)


def test_the_difference_of_smooth_errors_is_paired() -> None:
    one, other = smooth_cells(1.0, 0), smooth_cells(1.5, 0)
    same = smooth_error_difference(other, other, draws=100)
    assert same.lower <= same.estimate == 0 <= same.upper
    found = smooth_error_difference(one, other, draws=200)
    assert found.estimate == pytest.approx(
        float(smooth_error(one.sum(0))[0]) - float(smooth_error(other.sum(0))[0]), abs=1e-4
    )
    assert found.upper < 0  # the second is too sure
    swapped = smooth_error_difference(other, one, draws=200)
    assert [swapped.lower, swapped.upper] == pytest.approx([-found.upper, -found.lower])
