"""A scalar temperature is a convex problem, solved exactly."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.errors import NonFiniteError
from calibtrain.fitting import fit_temperature


def likelihood_of(logits: np.ndarray, labels: np.ndarray):  # type: ignore[no-untyped-def]
    """Mean nll and entropy of softmax(logits / T), directly in float64."""

    def at(temperature: float) -> tuple[float, float]:
        scaled = logits / temperature
        log_p = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
        nll = -log_p[np.arange(len(labels)), labels]
        return float(nll.mean()), float(-(np.exp(log_p) * log_p).sum(1).mean())

    return at


def drawn(seed: int, tokens: int = 4000, vocab: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(tokens, vocab)) * 2
    labels = np.argmax(logits + rng.gumbel(size=logits.shape), axis=1)
    return logits, labels


@given(st.floats(0.1, 10.0), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_logits_scaled_by_c_give_the_temperature_times_c(c: float, seed: int) -> None:
    logits, labels = drawn(seed)
    own = fit_temperature(likelihood_of(logits, labels)).temperature
    scaled = fit_temperature(likelihood_of(logits * c, labels)).temperature
    assert scaled == pytest.approx(own * c, rel=1e-3)
    assert own == pytest.approx(1.0, abs=0.05)  # labels follow the model


@pytest.mark.parametrize("c", [0.3, 1.0, 4.0])
def test_it_is_the_minimum_and_there_the_entropy_is_calibrated(c: float) -> None:
    logits, labels = drawn(7)
    likelihood = likelihood_of(logits * c, labels)
    fitted = fit_temperature(likelihood)
    nll, entropy = likelihood(fitted.temperature)
    assert fitted.nll_after == nll <= fitted.nll_before == likelihood(1.0)[0]
    assert nll == pytest.approx(entropy, abs=1e-5)
    for factor in (0.99, 1.01):
        assert likelihood(fitted.temperature * factor)[0] > nll


def test_where_no_temperature_is_best_the_end_of_the_range_is_given() -> None:
    logits = np.tile([1.0, 0.0], (10, 1))
    always, never = np.zeros(10, int), np.ones(10, int)
    assert fit_temperature(likelihood_of(logits, always)).temperature == pytest.approx(0.01)
    assert fit_temperature(likelihood_of(logits, never)).temperature == pytest.approx(100.0)


def test_what_is_not_finite_is_told() -> None:
    with pytest.raises(NonFiniteError, match=r"likelihood: .* is not finite"):
        fit_temperature(lambda temperature: (math.nan, 1.0))
