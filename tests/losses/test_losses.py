"""Every loss against a direct float64 implementation on logits: values, gradients, laws, edges."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import loss_formulas as reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain import losses
from calibtrain.losses import BatchLoss, TokenLoss
from calibtrain.readout import TokenStats, accumulate, statistics

VOCAB, PADDED, TOKENS = 11, 13, 40
POSTERIOR = np.array([0.1, -1.0, 0.3, 0.2, 0.9, 0.5, -1.0, 0.8, 0.6, 1.0])

TOKEN_LOSSES: dict[str, tuple[TokenLoss, Callable[..., Any]]] = {
    "cross_entropy": (losses.CrossEntropy(), reference.cross_entropy),
    "label_smoothing": (losses.LabelSmoothing(), reference.label_smoothing),
    "focal": (losses.Focal(), reference.focal),
    "flsd_53": (losses.SampleDependentFocal(), reference.flsd_53),
    "dual_focal": (losses.DualFocal(), reference.dual_focal),
    "entropy_penalty": (losses.EntropyPenalty(), reference.entropy_penalty),
    "brier": (losses.Brier(), reference.brier),
    "margin_smoothing": (losses.MarginSmoothing(), reference.margin_smoothing),
    "z_loss": (losses.ZLoss(), reference.z_loss),
    "selective_smoothing": (losses.SelectiveSmoothing(), reference.selective_smoothing),
    "poscal": (
        losses.PosCal(posterior=jnp.asarray(POSTERIOR, jnp.float32)),
        lambda z, y: reference.poscal(z, y, jnp.asarray(POSTERIOR)),
    ),
}
BATCH_LOSSES: dict[str, tuple[BatchLoss, Callable[..., Any]]] = {
    "mmce": (losses.MMCE(), reference.mmce),
    "weighted_mmce": (losses.MMCE(weighted=True), reference.weighted_mmce),
    "soft_binned_ece": (losses.SoftBinnedECE(), reference.soft_binned_ece),
    "dece": (losses.DECE(), reference.dece),
    "dca": (losses.DCA(), reference.dca),
    "mdca": (losses.MDCA(), reference.mdca),
    "avuc": (losses.AvUC(VOCAB), reference.avuc),
    "balanced": (losses.BalancedSelectiveSmoothing(), reference.balanced_selective_smoothing),
}
EVERY = {**TOKEN_LOSSES, **BATCH_LOSSES}
CASES = ["random", "confident", "uniform", "one-hot"]


def problem(case: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits in float32 (so that both sides see the same), targets and weights.

    Nearly uniform, not quite: confidences that are equal in float32 alone are a kink of MMCE.
    """
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(TOKENS, VOCAB)).astype(np.float32)
    y = rng.integers(0, VOCAB, TOKENS)
    scale = {"random": 1.5, "confident": 8.0, "uniform": 0.03, "one-hot": 60.0}[case]
    weights = (rng.random(TOKENS) < 0.8).astype(np.float32)
    return z * np.float32(scale), y, weights


def seen(loss: Any, logits: Any, labels: Any, weights: Any) -> TokenStats:
    """What a training step hands to a loss: logits are hidden states times the identity here."""

    def reduction(logits: Any, labels: Any, weights: Any) -> dict[str, Any]:
        found = getattr(loss, "reductions", {})
        return {name: reduce(logits, labels, weights) for name, reduce in found.items()}

    sums, stats = accumulate(
        logits,
        jnp.eye(VOCAB, PADDED),
        labels,
        weights,
        reduction,
        vocab_size=VOCAB,
        fields=loss.fields,
        functionals=loss.functionals,
        chunk=TOKENS,
    )
    return TokenStats(
        **{name: getattr(stats, name) for name in loss.fields}, extra=stats.extra, sums=sums
    )


@functools.cache
def value_and_gradient(name: str) -> Callable[..., Any]:
    loss: Any = EVERY[name][0]

    def value(z: Any, y: Any, w: Any) -> Any:
        return loss(seen(loss, z, y, w), w)

    return jax.jit(jax.value_and_grad(value))


def ours(name: str, z: Any, y: Any, w: Any) -> tuple[np.ndarray, np.ndarray]:
    result, gradient = value_and_gradient(name)(z, y, w)
    return np.asarray(result), np.asarray(gradient)


@functools.cache
def direct_value_and_gradient(name: str) -> Callable[..., Any]:
    function = EVERY[name][1]

    def value(z: Any, y: Any, w: Any) -> Any:
        if name in BATCH_LOSSES:
            return function(z, y, w)
        return (function(z, y) * w).sum() / w.sum()

    return jax.jit(jax.value_and_grad(value))


def directly(name: str, z: Any, y: Any, w: Any) -> tuple[np.ndarray, np.ndarray]:
    with jax.enable_x64(True):
        exactly = jnp.asarray(z, jnp.float64), jnp.asarray(y), jnp.asarray(w, jnp.float64)
        result, gradient = direct_value_and_gradient(name)(*exactly)
        return np.asarray(result), np.asarray(gradient)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", list(EVERY))
def test_values_and_gradients_equal_a_direct_float64_computation(name: str, case: str) -> None:
    z, y, w = problem(case)
    value, gradient = ours(name, z, y, w)
    expected, expected_gradient = directly(name, z, y, w)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", list(EVERY))
@pytest.mark.parametrize("right", [True, False], ids=["p=1", "p=0"])
def test_certainty_has_finite_values_and_gradients(name: str, right: bool) -> None:
    """The target's probability is exactly 1, or underflows to exactly 0."""
    z = np.zeros((TOKENS, VOCAB), np.float32)
    z[:, 3] = 500.0
    y = np.full(TOKENS, 3 if right else 5)
    value, gradient = ours(name, z, y, np.ones(TOKENS, np.float32))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", list(EVERY))
def test_all_tokens_alike_have_finite_gradients(name: str) -> None:
    """Uniform predictions tie every entry; distances between tokens are exactly 0."""
    z = np.zeros((TOKENS, VOCAB), np.float32)
    value, gradient = ours(name, z, np.arange(TOKENS) % VOCAB, np.ones(TOKENS, np.float32))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("name", list(EVERY))
def test_tokens_without_weight_do_not_count(name: str) -> None:
    z, y, w = problem("random")
    kept = w > 0
    others = z.copy()
    others[~kept] = 50 * np.random.default_rng(1).normal(size=others[~kept].shape)
    value, gradient = ours(name, z, y, w)
    again, other_gradient = ours(name, others, y, w)
    np.testing.assert_allclose(value, again, rtol=1e-6)
    np.testing.assert_allclose(gradient, other_gradient, rtol=1e-5, atol=1e-8)
    assert not gradient[~kept].any()


stats_of = st.integers(0, 2**31 - 1)


@functools.cache
def compiled(loss: TokenLoss) -> Callable[..., Any]:
    return jax.jit(
        lambda z, y: loss.per_token(
            statistics(z, y, fields=loss.fields, functionals=loss.functionals)
        )
    )


def per_token(loss: TokenLoss, seed: int, scale: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = jnp.asarray(rng.normal(size=(TOKENS, VOCAB)) * scale, jnp.float32)
    return np.asarray(compiled(loss)(z, jnp.asarray(rng.integers(0, VOCAB, TOKENS))))


@settings(max_examples=20, deadline=None)
@given(seed=stats_of, scale=st.floats(0, 30))
def test_without_their_parameter_losses_are_cross_entropy(seed: int, scale: float) -> None:
    plain = per_token(losses.CrossEntropy(), seed, scale)
    for loss in (
        losses.LabelSmoothing(smoothing=0.0),
        losses.Focal(gamma=0.0),
        losses.SampleDependentFocal(gamma_below=0.0, gamma_above=0.0),
        losses.DualFocal(gamma=0.0),
        losses.EntropyPenalty(beta=0.0),
        losses.MarginSmoothing(strength=0.0),
        losses.ZLoss(coefficient=0.0),
        losses.PosCal(),
    ):
        np.testing.assert_array_equal(per_token(loss, seed, scale), plain)


@settings(max_examples=20, deadline=None)
@given(seed=stats_of, scale=st.floats(0, 30))
def test_brier_lies_between_0_and_2(seed: int, scale: float) -> None:
    values = per_token(losses.Brier(), seed, scale)
    assert (values >= -1e-6).all()
    assert (values <= 2 + 1e-6).all()


@settings(max_examples=20, deadline=None)
@given(seed=stats_of, scale=st.floats(0, 30), gamma=st.sampled_from([0.0, 0.5, 1.0, 3.0]))
def test_focal_forgives_more_with_a_larger_power(seed: int, scale: float, gamma: float) -> None:
    milder = per_token(losses.Focal(gamma=gamma), seed, scale)
    stronger = per_token(losses.Focal(gamma=gamma + 1), seed, scale)
    assert (stronger <= milder * (1 + 1e-6)).all()


def test_proper_losses_are_least_at_the_truth_and_the_others_are_not() -> None:
    """The expected loss over targets drawn from a known distribution, by its gradient there."""
    truth = np.array([0.55, 0.25, 0.12, 0.08])

    def slope(loss: TokenLoss) -> float:
        def expected(z: Any) -> Any:
            def reduction(*_: Any) -> dict[str, Any]:
                return {}

            _, stats = accumulate(
                jnp.tile(z, (4, 1)),
                jnp.eye(4),
                jnp.arange(4),
                jnp.ones(4),
                reduction,
                fields=loss.fields,
                functionals=loss.functionals,
            )
            return jnp.sum(loss.per_token(stats) * truth)

        return float(jnp.abs(jax.grad(expected)(jnp.log(jnp.asarray(truth, jnp.float32)))).max())

    assert slope(losses.CrossEntropy()) < 1e-6
    assert slope(losses.Brier()) < 1e-6
    for loss in (losses.Focal(), losses.LabelSmoothing(), losses.EntropyPenalty()):
        assert slope(loss) > 1e-3, loss


def test_poscal_takes_its_posteriors_from_the_tokens_that_it_counted() -> None:
    loss = losses.PosCal(bins=4, refresh_every=2)
    confidence = jnp.asarray([0.1, 0.3, 0.3, 0.9, 0.9, 1.0])
    stats = TokenStats(
        nll=jnp.ones(6),
        log_confidence=jnp.log(confidence),
        correct=jnp.asarray([0.0, 1.0, 0.0, 1.0, 1.0, 0.0]),
    )
    weights = jnp.asarray([1.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    state = loss.initial_state()
    counts = loss.count(stats, weights)
    state = loss.advanced(state, counts, jnp.asarray(0))
    assert (state["posterior"] == -1).all()  # not due yet
    state = loss.advanced(state, counts, jnp.asarray(1))
    np.testing.assert_allclose(state["posterior"], [0.0, 0.5, -1.0, 0.5])
    assert not state["weight"].any()
    bound = loss.bound(state)
    at_posterior = TokenStats(nll=jnp.ones(1), log_confidence=jnp.log(jnp.asarray([0.5])))
    value = float(bound.per_token(at_posterior)[0])
    np.testing.assert_allclose(value, 1.0)  # an empty bin asks for nothing
