"""Matrix scaling: untouched at the start, SciPy's optimum at the end, and what its penalty does."""

from typing import Any

import jax
import numpy as np
import pytest
from heads import head_config
from known_states import MODEL, VOCAB, make
from scipy.optimize import minimize

from calibtrain.config import HEADS, Config, validate
from calibtrain.config.temperature import LARGEST_MATRIX
from calibtrain.errors import UserError
from calibtrain.fitting.head import FittedHead, Recipe, fit_head
from calibtrain.fitting.hidden_states import HiddenStates
from calibtrain.fitting.output_layer import OutputLayer
from calibtrain.losses import CrossEntropy
from calibtrain.temperature import make_head
from calibtrain.temperature.build import network_of
from calibtrain.temperature.mixing import FullMixing, LowRankMixing

MATRICES = ("matrix", "low_rank_matrix")


def head_of(kind: str, **options: Any) -> Any:
    return make_head(validate(HEADS[kind], {"kind": kind, **options}), MODEL, VOCAB)


def bent(rows: int = 16, time: int = 32) -> tuple[HiddenStates, OutputLayer]:
    """States whose unembedding was mixed after the labels were drawn."""
    states, output_layer, _ = make(rows, time, lambda hidden: np.ones(hidden.shape[:2]), seed=5)
    mix = np.eye(VOCAB) + 0.3 * np.random.default_rng(6).normal(size=(VOCAB, VOCAB))
    return states, OutputLayer((output_layer.unembedding @ mix).astype(np.float32), VOCAB)


def fitted(head: Any, states: HiddenStates, output_layer: OutputLayer, steps: int) -> FittedHead:
    """By gradients of the whole text, without decay or held-out documents."""
    options = {"weight_decay": 0.0, "held_out": 0.0, "learning_rate": 5e-2}
    recipe = Recipe(steps=steps, tokens=states.tokens, **options)
    return fit_head(head, output_layer, states, CrossEntropy(), recipe)


@pytest.mark.parametrize("kind", MATRICES)
def test_before_a_fit_the_unembedding_is_untouched_to_the_bit(kind: str) -> None:
    head = head_of(kind)
    unembedding = np.random.default_rng(0).normal(size=(8, VOCAB)).astype(np.float32)
    columns = np.asarray(head.columns(head.init(jax.random.key(3)), unembedding))
    np.testing.assert_array_equal(columns[:-1], unembedding)
    np.testing.assert_array_equal(columns[-1], 0.0)


@pytest.mark.parametrize("kind", MATRICES)
def test_the_logits_are_w_z_plus_b(kind: str) -> None:
    rng = np.random.default_rng(1)
    head = head_of(kind)
    fresh = head.init(jax.random.key(3))
    params = jax.tree.map(lambda leaf: leaf + rng.normal(size=leaf.shape).astype(np.float32), fresh)
    if kind == "matrix":
        others = np.asarray(params["off_diagonal"]).reshape(-1)
        mixing = np.zeros((VOCAB, VOCAB))
        mixing[~np.eye(VOCAB, dtype=bool)] = others / VOCAB
    else:
        mixing = np.asarray(params["out"]) @ np.asarray(params["into"]).T
        mixing = mixing / (16 * VOCAB**0.5)
    unembedding = rng.normal(size=(8, VOCAB)).astype(np.float32)
    hidden = rng.normal(size=(3, 8))
    columns = np.asarray(head.columns(params, unembedding))
    z = hidden @ unembedding
    want = z @ (np.diag(params["scale"]) + mixing).T + params["bias"]
    got = hidden @ columns[:-1] + columns[-1]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    off = mixing[~np.eye(VOCAB, dtype=bool)]
    assert float(head.mixing.mean_square(params)) == pytest.approx((off**2).mean(), rel=1e-5)


@pytest.mark.long
def test_a_full_matrix_is_the_optimum_that_scipy_finds() -> None:
    """W z = W U^T h is any linear map of h: the convex problem has vocab x (width + 1) unknowns."""
    states, output_layer = bent()
    h = np.asarray(states.hidden, np.float64).reshape(-1, MODEL.width)
    h = np.concatenate([h, np.ones((len(h), 1))], axis=1)
    labels = states.labels.reshape(-1)

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        z = h @ x.reshape(-1, VOCAB)
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        value = float(-np.log(p[np.arange(len(z)), labels]).mean())
        p[np.arange(len(z)), labels] -= 1
        return value, (h.T @ p / len(z)).reshape(-1)

    start = np.concatenate([np.asarray(output_layer.unembedding, np.float64), np.zeros((1, VOCAB))])
    best = minimize(value_and_gradient, start.reshape(-1), jac=True, method="L-BFGS-B")
    head = head_of("matrix")
    found = fitted(head, states, output_layer, 1500)
    assert found.nll_before > best.fun + 0.1
    assert found.nll_after == pytest.approx(best.fun, abs=1e-4)

    def centred(logits: np.ndarray) -> np.ndarray:
        return logits - logits.mean(1, keepdims=True)

    columns = np.asarray(head.columns(found.params, output_layer.unembedding))
    np.testing.assert_allclose(
        centred(h @ columns), centred(h @ best.x.reshape(-1, VOCAB)), atol=0.1
    )


@pytest.mark.long
def test_a_matrix_fits_a_text_at_least_as_closely_as_a_diagonal_unless_it_is_penalised() -> None:
    states, output_layer = bent(8, 32)
    vector = fitted(head_of("vector"), states, output_layer, 150).nll_after
    low = fitted(head_of("low_rank_matrix", rank=2), states, output_layer, 150).nll_after
    head = head_of("matrix")
    full = fitted(head, states, output_layer, 150)
    held = fitted(head_of("matrix", off_diagonal_penalty=100.0), states, output_layer, 150)
    assert full.nll_after < low < vector - 0.02
    assert full.nll_after < held.nll_after < vector + 1e-3
    mean_square = head.mixing.mean_square
    assert mean_square(held.params) < 0.1 * mean_square(full.params)


def test_a_full_matrix_is_refused_for_many_entries_and_a_thin_one_is_not() -> None:
    few, many = LARGEST_MATRIX, LARGEST_MATRIX + 1
    config = Config(temperature=head_config("matrix"))
    assert network_of(config, few).head is not None
    with pytest.raises(UserError, match=r"up to 4,096 entries, not 4,097; use low_rank_matrix"):
        network_of(config, many)
    assert network_of(Config(temperature=head_config("low_rank_matrix")), many).head is not None


def test_a_penalty_is_refused_where_nothing_would_use_it() -> None:
    with pytest.raises(UserError, match=r"off_diagonal_penalty is for heads that are fitted"):
        head_config("matrix", off_diagonal_penalty=1.0)


def test_both_forms_have_the_parameters_that_they_say() -> None:
    def count(mixing: Any) -> int:
        shapes = jax.eval_shape(mixing.init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    assert count(FullMixing(50)) == 50 * 49
    assert count(LowRankMixing(50, 4)) == 2 * 50 * 4
