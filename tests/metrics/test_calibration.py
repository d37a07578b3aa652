"""Calibration metrics: hand-computed values, a direct float64 loop, and edges."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.metrics import expected_calibration_error, signed_gap


def direct(confidence: Any, correct: Any, bins: int, weights: Any) -> float:
    """The definition, a bin at a time, in float64."""
    total = 0.0
    for number in range(bins):
        low, high = number / bins, (number + 1) / bins
        inside = (confidence > low) & (confidence <= high)
        if number == 0:
            inside |= confidence == 0
        if weights[inside].sum() > 0:
            gap = (weights * (correct - confidence))[inside].sum()
            total += abs(gap)
    return total / weights.sum()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), n=st.sampled_from([1, 7, 300]), bins=st.sampled_from([1, 2, 15, 40])
)
def test_ece_equals_its_definition(seed: int, n: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.beta(0.5, 0.5, n).astype(np.float32)
    confidence[rng.random(n) < 0.1] = 1.0
    confidence[rng.random(n) < 0.1] = 0.0
    edges = np.linspace(0, 1, bins + 1, dtype=np.float32)
    near = np.abs(confidence[:, None] - edges[1:-1]).min(axis=1, initial=1.0) < 1e-6
    confidence[near] = 0.5 / bins  # away from inner edges, where float32 and float64 may differ
    correct = (rng.random(n) < confidence).astype(np.float32)
    weights = rng.random(n).astype(np.float32) + 0.01
    got = expected_calibration_error(confidence, correct, bins=bins, weights=weights)
    want = direct(*(np.asarray(a, np.float64) for a in (confidence, correct)), bins, weights)
    assert math.isclose(float(got), want, abs_tol=2e-6)


def test_ece_by_hand() -> None:
    # 0.9 twice, one right: |0.5 - 0.9| * 2/3; 0.3 once, right: |1 - 0.3| / 3
    confidence, correct = jnp.array([0.9, 0.9, 0.3]), jnp.array([1.0, 0.0, 1.0])
    value = expected_calibration_error(confidence, correct, bins=10)
    assert float(value) == pytest.approx(0.4 * 2 / 3 + 0.7 / 3, abs=1e-6)
    assert float(signed_gap(confidence, correct)) == pytest.approx(0.7 - 2 / 3, abs=1e-6)


@pytest.mark.parametrize("scheme", ["width", "mass"])
def test_certainty_falls_into_the_last_bin_and_zero_into_the_first(scheme: str) -> None:
    """Where other libraries open an extra bin or lose the prediction."""
    sure = expected_calibration_error(jnp.ones(4), jnp.array([1.0, 1, 1, 0]), scheme=scheme)
    assert float(sure) == pytest.approx(0.25)
    none = expected_calibration_error(jnp.zeros(4), jnp.array([1.0, 0, 0, 0]), scheme=scheme)
    assert float(none) == pytest.approx(0.25)


def test_a_bin_is_closed_on_the_right() -> None:
    """0.2 and 0.2 + epsilon lie in different bins of five: their gaps do not cancel."""
    confidence = jnp.array([0.2, np.nextafter(np.float32(0.2), np.float32(1))])
    value = expected_calibration_error(confidence, jnp.array([1.0, 0.0]), bins=5)
    assert float(value) == pytest.approx(0.5 * 0.8 + 0.5 * 0.2, abs=1e-6)


@pytest.mark.parametrize("bins", [25, 100])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(bins: int) -> None:
    """i / bins lies in bin i - 1 for every i, although float32 holds hardly any of them."""
    confidence = np.arange(1, bins + 1) / bins
    correct = np.arange(bins) % 2
    want = np.abs(correct - confidence).mean()  # each is alone in its bin
    got = expected_calibration_error(confidence, correct, bins=bins)
    assert float(got) == pytest.approx(want, abs=1e-6)


def test_equal_mass_bins_hold_equal_shares() -> None:
    confidence = jnp.array([0.1, 0.11, 0.12, 0.9])
    correct = jnp.array([0.0, 0.0, 1.0, 1.0])
    value = expected_calibration_error(confidence, correct, bins=2, scheme="mass")
    assert float(value) == pytest.approx((0.21 + abs(2 - 1.02)) / 4, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (([0.5, np.nan], [1.0, 0.0]), "confidence"),
        (([0.5, np.inf], [1.0, 0.0]), "confidence"),
        (([0.5, 1.1], [1.0, 0.0]), "confidence"),
        (([0.5, 0.5], [1.0, 2.0]), "correct"),
        (([0.5, 0.5], [1.0]), "correct"),
        (([], []), "confidence"),
    ],
)
def test_nonsense_is_refused_by_name(arguments: Any, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        expected_calibration_error(*(np.asarray(a, np.float32) for a in arguments))


def test_nonsense_in_options_is_refused() -> None:
    good = (np.array([0.5]), np.array([1.0]))
    with pytest.raises(ValueError, match="bins"):
        expected_calibration_error(*good, bins=0)
    with pytest.raises(ValueError, match="scheme"):
        expected_calibration_error(*good, scheme="with")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weights"):
        expected_calibration_error(*good, weights=np.array([0.0]))


def test_it_runs_inside_jit() -> None:
    confidence, correct = jnp.array([0.9, 0.9, 0.3]), jnp.array([1.0, 0.0, 1.0])
    inside = jax.jit(expected_calibration_error)(confidence, correct)
    assert float(inside) == pytest.approx(float(expected_calibration_error(confidence, correct)))


def test_perfect_calibration_has_an_ece_near_zero() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(200_000)
    correct = rng.random(200_000) < confidence
    assert float(expected_calibration_error(confidence, correct.astype(float))) < 0.005
