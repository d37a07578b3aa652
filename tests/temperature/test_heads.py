"""Heads within a network: what they leave alone, and that decoding is the forward pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from heads import BY_TOKEN, KINDS, MODELS, VOCAB, body, params_of, stirred, with_head
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.config.temperature import AFFINE
from calibtrain.models import TEMPERATURE, build
from calibtrain.models.decoding import decode, empty_cache, prefill
from calibtrain.readout import readout

SEGMENTS = np.repeat([[0, 1, 2]], [5, 9, 2], axis=1)
TOKENS = np.random.default_rng(0).integers(0, VOCAB, (1, 16))
LABELS = np.random.default_rng(1).integers(0, VOCAB, (1, 16))


@pytest.mark.parametrize(
    "kind",
    [k if k == "adaptive" else pytest.param(k, marks=pytest.mark.long) for k in KINDS],
)
def test_a_head_changes_nothing_before_it_is_trained(kind: str) -> None:
    network = with_head(kind)
    hidden, unembedding, temperature = network.apply(params_of(network), TOKENS, SEGMENTS)
    without, columns, none = build(MODELS["transformer"], VOCAB).apply(body(), TOKENS, SEGMENTS)
    assert none is None
    got = readout(hidden, unembedding, LABELS, temperature=temperature, fields=("nll",))
    want = readout(without, columns, LABELS, fields=("nll",))
    if kind in AFFINE:  # a product with one more column may round otherwise
        np.testing.assert_allclose(got.nll, want.nll, rtol=1e-5)
    else:
        np.testing.assert_array_equal(temperature, 1.0)
        np.testing.assert_array_equal(got.nll, want.nll)


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        *(
            pytest.param(kind, "transformer", marks=[] if kind == "position" else pytest.mark.long)
            for kind in KINDS
        ),
        pytest.param("adaptive", "lstm", marks=pytest.mark.long),
    ],
)
def test_decoding_equals_the_forward_pass(kind: str, model: str) -> None:
    """Row by row of packed documents; and from a prefix that is read at once."""
    network = with_head(kind, model)
    params = stirred(params_of(network, model))
    hidden, unembedding, temperature = jax.jit(network.apply)(params, TOKENS, SEGMENTS)
    want = np.asarray(hidden @ unembedding)[0]
    step = jax.jit(functools.partial(decode, network))
    if temperature is not None:
        assert np.ptp(np.asarray(temperature)) > 0.01 or kind == "global"
        want = want / np.asarray(temperature)[0, :, None]
    columns = network.unembedding(params)
    for segment in (0, 1):
        tokens = TOKENS[0, SEGMENTS[0] == segment]
        wanted = want[SEGMENTS[0] == segment]
        cache = empty_cache(network, params, 2, 12)
        for place, token in enumerate(tokens):
            both, alone = jnp.array([token, token]), jnp.array([True, False])
            state, of_state, cache = step(params, cache, both, alone)
            divisor = 1.0 if of_state is None else of_state[0]
            np.testing.assert_allclose(state[0] @ columns / divisor, wanted[place], atol=3e-5)
    read = jax.jit(functools.partial(prefill, network), static_argnums=3)
    counts = jnp.array([len(tokens), 1])
    state, of_state, cache = read(params, jnp.array([tokens, tokens]), counts, 12)
    divisor = np.ones(2) if of_state is None else np.asarray(of_state)
    logits = np.asarray(state @ columns) / divisor[:, None]
    np.testing.assert_allclose(logits, wanted[[-1, 0]], atol=3e-5)
    state, of_state, _ = decode(network, params, cache, jnp.array(tokens[[0, 1]]))
    divisor = 1.0 if of_state is None else of_state[1]
    np.testing.assert_allclose(state[1] @ columns / divisor, wanted[1], atol=3e-5)


@pytest.mark.long
@pytest.mark.parametrize("kind", BY_TOKEN)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_temperatures_stay_within_their_limits(kind: str, data: st.DataObject) -> None:
    """Whatever a layer lets out: zeros, the largest float32, infinities."""
    limit = data.draw(st.floats(1.01, 1e4))
    numbers = st.one_of(
        st.floats(allow_nan=False, width=32), st.sampled_from([0.0, np.inf, -np.inf, 3e38])
    )
    hidden = np.array(data.draw(st.lists(numbers, min_size=32, max_size=32)), np.float32)
    head = with_head(kind, limit=limit).head
    assert head is not None
    scale = data.draw(st.sampled_from([0.1, 1.0, 100.0]))
    shapes = jax.eval_shape(head.init, jax.random.key(0))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    params = stirred({TEMPERATURE: zeros}, scale)[TEMPERATURE]
    segments = jnp.zeros((1, 2), int)
    unembedding = jnp.zeros((16, VOCAB))
    _, _, found = head.apply(params, hidden.reshape(1, 2, 16), unembedding, segments)
    assert found is not None
    assert (np.asarray(found, np.float64) <= limit).all(), found
    assert (np.asarray(found, np.float64) >= 1 / limit).all(), found


@pytest.mark.long
def test_thermometer_is_the_mean_of_inverse_temperatures_so_far() -> None:
    network = with_head("thermometer")
    params = stirred(params_of(network), 1.0)
    source = network.head.source  # type: ignore[union-attr]
    hidden = np.random.default_rng(2).normal(size=(1, 16, 16)).astype(np.float32)
    inverse = np.asarray(source.inverse(params[TEMPERATURE], hidden), np.float64)[0]
    found = np.exp(np.asarray(source.apply(params[TEMPERATURE], hidden, SEGMENTS)))[0]
    for segment in range(3):
        of = SEGMENTS[0] == segment
        mean = np.cumsum(inverse[of]) / np.arange(1, of.sum() + 1)
        np.testing.assert_allclose(found[of], 1 / mean, rtol=1e-5)
    task = source.task_log_temperature(params[TEMPERATURE], hidden, np.ones((1, 16)))
    np.testing.assert_allclose(np.exp(-task), inverse.mean(), rtol=1e-5)


def test_thermometer_is_softplus_of_three_branches() -> None:
    """As it is defined, but for the bound, which is far away here."""
    network = with_head("thermometer", limit=1e4)
    params = stirred(params_of(network), 0.2)[TEMPERATURE]
    h = np.random.default_rng(3).normal(size=(7, 16))
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    inner = np.maximum(h @ p["kernel"] + p["bias"], 0).reshape(7, 3, 16)
    three = (inner * p["branch"]["kernel"]).sum(-1) + p["branch"]["bias"]
    f = three @ p["out"]["kernel"][:, 0] + p["out"]["bias"]
    want = np.log1p(np.exp(f + np.log(np.e - 1)))
    got = network.head.source.inverse(params, h.astype(np.float32))  # type: ignore[union-attr]
    np.testing.assert_allclose(got, want, rtol=0.02)
