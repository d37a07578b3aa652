"""The edges at which known libraries break, for every metric; and laws that all of them obey."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.metrics import (
    ConfidenceHistogram,
    area_under_risk_coverage,
    area_under_roc,
    average_calibration_error,
    brier_parts,
    brier_score,
    classwise_calibration_error,
    debiased_calibration_error,
    entropy_calibration_error,
    expected_calibration_error,
    full_calibration_error,
    histogram_metrics,
    kolmogorov_smirnov_error,
    log_loss,
    maximum_calibration_error,
    multiclass_brier_score,
    nll,
    reliability_table,
    risk_coverage,
    signed_gap,
    smooth_calibration_error,
    smooth_reliability,
    sweep_calibration_error,
    top_k_calibration_error,
)
from calibtrain.metrics.arguments import predictions
from calibtrain.metrics.histogram import CELLS, fine_table
from calibtrain.readout import TokenStats

ERRORS: dict[str, Any] = {
    "ece": expected_calibration_error,
    "ece_mass": functools.partial(expected_calibration_error, scheme="mass"),
    "mce": maximum_calibration_error,
    "ace": average_calibration_error,
    "sweep": functools.partial(sweep_calibration_error, max_bins=20),
    "smooth": smooth_calibration_error,
    "ks": kolmogorov_smirnov_error,
}
"""Errors that are |mean confidence - accuracy| where there is one confidence."""

ALL: dict[str, Any] = {
    **ERRORS,
    "signed_gap": signed_gap,
    "debiased": debiased_calibration_error,
    "brier": brier_score,
    "log_loss": log_loss,
    "auroc": area_under_roc,
    "aurc": area_under_risk_coverage,
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("value", [0.0, 1.0, 0.25, 1 / 3, np.nextafter(1.0, 0.0)])
def test_one_confidence_errs_by_its_gap(name: str, value: float) -> None:
    """Exactly 0 and exactly 1 among them: in one bin, neither lost nor in one more."""
    correct = np.array([1.0, 0, 0, 1, 0, 0, 0, 1])
    error = ERRORS[name](np.full(8, value), correct)
    assert float(error) == pytest.approx(abs(value - 3 / 8), abs=1e-7)


@pytest.mark.parametrize("name", ERRORS)
def test_certainty_that_is_right_and_impossibility_that_is_not_are_no_error(name: str) -> None:
    confidence = np.array([0.0, 1, 1, 0, 1])
    assert float(ERRORS[name](confidence, confidence)) == pytest.approx(0, abs=1e-9)
    assert float(ERRORS[name](1 - confidence, confidence)) > 0


def test_empty_bins_add_nothing() -> None:
    """Two of 15 bins hold anything: the mean and the maximum are over these two."""
    confidence, correct = np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 1.0, 1.0, 1.0])
    table = reliability_table(confidence, correct)
    assert (table[:, 0] > 0).sum() == 2
    assert maximum_calibration_error(confidence, correct) == pytest.approx(0.4)
    assert average_calibration_error(confidence, correct) == pytest.approx(0.25)
    parts = brier_parts(confidence, correct)
    assert parts.reliability == pytest.approx((0.4**2 + 0.1**2) / 2)
    assert parts.resolution == pytest.approx(0.25**2)
    assert parts.uncertainty == pytest.approx(3 / 16)
    assert parts.within_bin == pytest.approx(0)
    curve = smooth_reliability(confidence, correct, sigma=0.01)
    assert np.isnan(curve[50, 1])  # nothing is near one half
    assert curve[10, 1] == pytest.approx(0.5)
    assert curve[90, 1] == pytest.approx(1.0)


def test_one_class_has_an_error_but_no_ranking() -> None:
    confidence = np.array([0.2, 0.6, 1.0])
    for correct in (np.ones(3), np.zeros(3)):
        with pytest.raises(ValueError, match="correct"):
            area_under_roc(confidence, correct)
        risk = area_under_risk_coverage(confidence, correct)
        assert risk == pytest.approx(1 - correct[0])
        for name, error in ERRORS.items():
            want = abs(confidence.mean() - correct[0])
            if name not in ("mce", "ace"):
                assert float(error(confidence, correct)) == pytest.approx(want, abs=1e-6), name


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (([0.5, np.nan], [1.0, 0.0]), "confidence"),
        (([0.5, np.inf], [1.0, 0.0]), "confidence"),
        (([0.5, -np.inf], [1.0, 0.0]), "confidence"),
        (([0.5, 1.0000001], [1.0, 0.0]), "confidence"),
        (([0.5, -1e-9], [1.0, 0.0]), "confidence"),
        (([0.5, 0.5], [1.0, np.nan]), "correct"),
        (([0.5, 0.5], [1.0, 2.0]), "correct"),
        (([0.5, 0.5], [1.0]), "correct"),
        (([[0.5, 0.5]], [[1.0, 0.0]]), "confidence"),
        (([], []), "confidence"),
        (([0.5, 0.5], [1.0, 0.0], [1.0]), "weights"),
        (([0.5, 0.5], [1.0, 0.0], [1.0, np.nan]), "weights"),
        (([0.5, 0.5], [1.0, 0.0], [1.0, -1.0]), "weights"),
        (([0.5, 0.5], [1.0, 0.0], [0.0, 0.0]), "weights"),
    ],
)
def test_nonsense_is_refused_by_name(name: str, arguments: Any, culprit: str) -> None:
    confidence, correct, *weights = (np.asarray(a) for a in arguments)
    with pytest.raises(ValueError, match=f"^{culprit}:"):
        ALL[name](confidence, correct, weights=weights[0] if weights else None)


def test_nonsense_about_distributions_is_refused_by_name() -> None:
    good, labels = np.full((3, 4), 0.25), np.array([0, 1, 2])
    bad = {"nan": np.nan, "above": 1.5, "below": -0.1, "unfinished": 0.1}
    for metric in (
        classwise_calibration_error,
        full_calibration_error,
        functools.partial(top_k_calibration_error, k=2),
    ):
        for value in bad.values():
            probability = good.copy()
            probability[1, 2] = value
            with pytest.raises(ValueError, match=r"^probabilities:"):
                metric(probability, labels)
        for wrong in (np.array([0, 1]), np.array([0, 1, 4]), np.array([0, 1, -1])):
            with pytest.raises(ValueError, match=r"^labels:"):
                metric(good, wrong)
        with pytest.raises(ValueError, match=r"^weights:"):
            metric(good, labels, weights=np.zeros(3))
        with pytest.raises(ValueError, match=r"^bins:"):
            metric(good, labels, bins=0)
    with pytest.raises(ValueError, match=r"^k:"):
        top_k_calibration_error(good, labels, k=5)
    stats = TokenStats(nll=np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match=r"^nll:"):
        nll(stats)
    with pytest.raises(ValueError, match=r"^entropy:"):
        entropy_calibration_error(TokenStats(nll=np.ones(2)))
    with pytest.raises(ValueError, match=r"^sum_squares:"):
        multiclass_brier_score(TokenStats(nll=np.ones(2)))
    with pytest.raises(ValueError, match=r"^weights:"):
        nll(TokenStats(nll=np.ones(2)), weights=np.ones(3))


def test_what_weighs_nothing_may_hold_anything() -> None:
    confidence, correct = np.array([0.7, 0.4, 0.9, np.nan]), np.array([1.0, 0.0, 0.0, np.nan])
    weights = np.array([1.0, 1.0, 1.0, 0.0])
    for name, metric in ALL.items():
        got = metric(confidence, correct, weights=weights)
        assert float(got) == pytest.approx(float(metric(confidence[:3], correct[:3])))
        if name in ("ece", "smooth", "auroc"):  # the three ways there are of adding up
            inside = jax.jit(metric)(*map(jnp.float32, (confidence, correct)), weights=weights)
            assert float(inside) == pytest.approx(float(got), abs=1e-5), name


@st.composite
def tied_predictions(draw: Any) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    confidence = rng.choice(np.r_[0, 1, rng.random(6)], 40)
    correct = (rng.random(40) < confidence).astype(float)
    correct[:2] = 0, 1
    return confidence, correct, rng.integers(1, 4, 40)


@settings(max_examples=25, deadline=None)
@given(tied_predictions(), st.integers(0, 100))
def test_order_does_not_matter_and_a_weight_of_two_is_coming_twice(
    found: tuple[Any, Any, Any], seed: int
) -> None:
    confidence, correct, weights = found
    order = np.random.default_rng(seed).permutation(40)
    again = np.repeat(np.arange(40), weights)
    for name, metric in ALL.items():
        value = metric(confidence, correct, weights=weights)
        moved = metric(confidence[order], correct[order], weights=weights[order])
        repeated = metric(confidence[again], correct[again])
        assert float(moved) == pytest.approx(float(value), abs=1e-9), name
        assert float(repeated) == pytest.approx(float(value), abs=1e-9), name


def test_the_sweep_has_at_most_one_bin_for_each_prediction_however_they_are_given() -> None:
    """A weight of 2 is two predictions, and one of 0 is none, also inside jit."""
    confidence, correct, weights = [0.2, 0.5, 0.9], [0.0, 1.0, 1.0], [1, 2, 1]
    want = sweep_calibration_error(np.repeat(confidence, weights), np.repeat(correct, weights))
    assert want == pytest.approx(0.325)
    assert sweep_calibration_error(confidence, correct, weights=weights) == pytest.approx(want)
    table = fine_table(predictions(confidence, correct, weights), CELLS)
    found = histogram_metrics(ConfidenceHistogram(table))
    assert found["sweep_bins"] == 4
    assert found["sweep_calibration_error"] == pytest.approx(want, abs=1e-6)
    padded = [np.pad(np.float32(array), (0, 5)) for array in (confidence, correct, weights)]
    inside = jax.jit(ERRORS["sweep"])(*padded[:2], weights=padded[2])
    assert float(inside) == pytest.approx(float(want), abs=1e-5)


@pytest.mark.long
@settings(max_examples=20, deadline=None)
@given(tied_predictions())
def test_inside_jit_is_the_same_to_float32(found: tuple[Any, Any, Any]) -> None:
    confidence, correct, weights = (np.asarray(array, np.float32) for array in found)
    for name, metric in ALL.items():
        host = metric(confidence, correct, weights=weights)
        assert float(JITTED[name](confidence, correct, weights=weights)) == pytest.approx(
            float(host), rel=1e-4, abs=1e-5
        ), name


JITTED = {name: jax.jit(metric) for name, metric in ALL.items()}


@settings(max_examples=25, deadline=None)
@given(tied_predictions(), st.sampled_from([1, 5, 15]))
def test_the_parts_of_the_brier_score_add_up(found: tuple[Any, Any, Any], bins: int) -> None:
    """And with a bin a value, as in Murphy's own case, nothing is left within bins."""
    confidence, correct, weights = found
    parts = brier_parts(confidence, correct, bins=bins, weights=weights)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bin
    assert total == pytest.approx(np.average((confidence - correct) ** 2, weights=weights))
    values = np.round(confidence, 1)
    assert brier_parts(values, correct, bins=20).within_bin == pytest.approx(0, abs=1e-12)


def test_accepting_the_surest_first() -> None:
    """By hand: 0.9 twice (one wrong) together, then 0.5 (right), then 0.1 (wrong)."""
    confidence, correct = np.array([0.5, 0.9, 0.1, 0.9]), np.array([1.0, 1.0, 0.0, 0.0])
    curve = risk_coverage(confidence, correct)
    np.testing.assert_allclose(curve[:, 0], [0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve[:, 1], [1 / 2, 1 / 3, 1 / 2])
    area = area_under_risk_coverage(confidence, correct)
    assert area == pytest.approx((2 / 2 + 1 / 3 + 1 / 2) / 4)
    # pairs right over wrong: (0.5: over 0.1, under 0.9), (0.9: ties 0.9, over 0.1)
    assert area_under_roc(confidence, correct) == pytest.approx((1 + 0 + 0.5 + 1) / 4)


def test_a_calibrated_model_has_no_debiased_error() -> None:
    """Unbiased where the plug-in is not: over 300 data sets the squares average to 0."""
    rng = np.random.default_rng(0)
    squares, plug_in = [], []
    for _ in range(300):
        confidence = rng.random(200)
        correct = (rng.random(200) < confidence).astype(float)
        squares.append(debiased_calibration_error(confidence, correct, squared=True))
        table = reliability_table(confidence, correct, scheme="mass")
        plug_in.append(((table[:, 1] - table[:, 2]) ** 2 / table[:, 0]).sum() / 200)
    error = np.std(squares) / np.sqrt(300)
    assert abs(np.mean(squares)) < 4 * error
    assert np.mean(plug_in) > 20 * error


def test_entropy_calibration_is_zero_for_a_model_that_knows_its_own_entropy() -> None:
    stats = TokenStats(nll=np.array([0.5, 1.5]), entropy=np.array([1.25, 0.75]))
    assert entropy_calibration_error(stats) == pytest.approx(0)
    assert entropy_calibration_error(stats, weights=np.array([1, 0])) == pytest.approx(0.75)
