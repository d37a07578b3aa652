"""Samplers: their sets are those of the direct definitions, and draws follow the distribution."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from calibtrain.generation.samplers import Sampling, adjusted, draw, threshold

VOCAB, ROWS = 24, 3
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(ROWS, VOCAB)).astype(np.float32) * 2
LOG_P = np.asarray(jax.nn.log_softmax(LOGITS, axis=-1))
SEEN = RNG.random((ROWS, VOCAB)) < 0.3
NEXT_ENTROPY = np.where(RNG.random((ROWS, VOCAB)) < 0.6, 3 * RNG.random((ROWS, VOCAB)), np.inf)


def scaled(p: np.ndarray) -> np.ndarray:
    return p / p.sum()


def first_with_mass(p: np.ndarray, order: np.ndarray, mass: float) -> np.ndarray:
    """The shortest beginning of an order that has the mass: the definition, by a loop."""
    kept, total = np.zeros(len(p), bool), 0.0
    for entry in order:
        if total >= mass:
            break
        kept[entry], total = True, total + p[entry]
    return scaled(np.where(kept, p, 0.0))


def direct(row: int, sampling: Sampling) -> np.ndarray:
    """The distribution that a sampling defines, in float64, by sorting."""
    p = np.exp(LOG_P[row].astype(np.float64))
    if sampling.repetition_penalty != 1:
        p = scaled(np.where(SEEN[row], p**sampling.repetition_penalty, p))
    if sampling.lookahead:
        looked = np.isfinite(NEXT_ENTROPY[row])
        bent = p * np.exp(-sampling.lookahead * np.where(looked, NEXT_ENTROPY[row], 0.0))
        p = scaled(np.where(looked, bent, 0.0))
    p = scaled(p ** (1 / sampling.temperature))
    if sampling.top_k is not None:
        p = first_with_mass((p > 0) * 1.0, np.argsort(-p), sampling.top_k) * p
        p = scaled(p)
    if sampling.top_p is not None:
        p = first_with_mass(p, np.argsort(-p), sampling.top_p)
    if sampling.min_p is not None:
        p = scaled(np.where(p >= sampling.min_p * p.max(), p, 0.0))
    if sampling.typical is not None:
        with np.errstate(divide="ignore"):
            information = -np.log(p)
        entropy = np.sum(p[p > 0] * information[p > 0])
        p = first_with_mass(p, np.argsort(np.abs(information - entropy)), sampling.typical)
    return p


SAMPLINGS: dict[str, dict[str, Any]] = {
    "ancestral": {},
    "temperature": {"temperature": 0.6},
    "top-k": {"top_k": 5},
    "nucleus": {"top_p": 0.7},
    "min-p": {"min_p": 0.1},
    "typical": {"typical": 0.5},
    "penalty": {"repetition_penalty": 1.5},
    "lookahead": {"lookahead": 0.7},
    "all": {
        "repetition_penalty": 1.2,
        "lookahead": -0.3,
        "temperature": 1.4,
        "top_k": 15,
        "top_p": 0.95,
        "min_p": 0.01,
        "typical": 0.9,
    },
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_draws_follow_the_direct_definition(name: str) -> None:
    sampling = Sampling(**SAMPLINGS[name])
    arguments = {"seen": jnp.asarray(SEEN), "next_entropy": jnp.asarray(NEXT_ENTROPY)}
    found = adjusted(jnp.asarray(LOG_P), sampling, **arguments)
    want = np.array([direct(row, sampling) for row in range(ROWS)])
    np.testing.assert_allclose(np.exp(found), want, atol=2e-6)
    count = 20_000
    for row in range(ROWS):
        points = jax.random.uniform(jax.random.key(row), (count,))
        tokens = draw(jnp.broadcast_to(found[row], (count, VOCAB)), points)
        counts = np.bincount(tokens, minlength=VOCAB)
        possible = want[row] > 0
        assert not counts[~possible].any()
        if possible.sum() > 1:
            expected = count * want[row, possible] / want[row, possible].sum()
            assert chisquare(counts[possible], expected).pvalue > 1e-4


def test_entries_that_cannot_be_drawn_share_out_their_probability() -> None:
    drawable = np.arange(VOCAB) % 2 == 0
    found = np.exp(adjusted(jnp.asarray(LOG_P), Sampling(), drawable=jnp.asarray(drawable)))
    want = np.exp(LOG_P) * drawable
    np.testing.assert_allclose(found, want / want.sum(axis=1, keepdims=True), atol=1e-6)


@given(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=30),
    st.integers(1, 30),
)
def test_a_threshold_is_the_kth_largest_number(numbers: list[float], k: int) -> None:
    values = np.array(numbers, np.float32) + 0.0
    padded = np.full((1, 30), -np.inf, np.float32)
    padded[0, : len(values)] = values
    counted = np.isfinite(padded).astype(np.float32)
    (found,) = _THRESHOLD(padded, counted, np.array([min(k, len(values))], np.float32))
    assert found == np.sort(values)[::-1][min(k, len(values)) - 1]


_THRESHOLD = jax.jit(threshold)


def test_a_point_of_the_distribution_function_has_its_token() -> None:
    """Also where the vocabulary is not a square, and at both ends."""
    p = np.array([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0, 0.0]], np.float32)
    points = np.array([0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-24], np.float32)
    with np.errstate(divide="ignore"):
        rows = np.repeat(np.log(p), len(points), axis=0)
    assert draw(jnp.asarray(rows), jnp.asarray(points)).tolist() == [1, 1, 3, 3, 4, 4]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("temperature", 0.0, "a number above 0"),
        ("top_k", 0, "a whole number from 1"),
        ("top_p", 1.5, "above 0, at most 1"),
        ("min_p", -0.1, "from 0 to 1"),
        ("typical", float("nan"), "above 0, at most 1"),
        ("repetition_penalty", -1.0, "a number above 0"),
        ("lookahead", float("inf"), "a number"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(name: str, value: float, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .* is not allowed; allowed: {allowed}"):
        Sampling(**{name: value})
