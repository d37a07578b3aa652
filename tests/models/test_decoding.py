"""Decoding with a cache is the forward pass, a token at a time, whatever happens to the rows."""

import functools
from collections.abc import Callable

import jax
import numpy as np
import pytest

from calibtrain.config import ModelConfig, RopeScalingConfig
from calibtrain.models import Network, Params, build
from calibtrain.models.decoding import decode, empty_cache, prefill
from calibtrain.models.one_row import product

KINDS = [
    ModelConfig(kind="transformer", width=32, depth=2, heads=4, kv_heads=2),
    ModelConfig(kind="transformer", width=32, depth=2, heads=4, mlp="gelu", qk_norm=False),
    ModelConfig(kind="transformer", width=24, depth=2, heads=3, tied=False, rope_base=100.0),
    ModelConfig(kind="lstm", width=32, depth=2),
    ModelConfig(
        width=24,
        depth=2,
        heads=2,
        kv_heads=1,
        head_size=16,
        qkv_bias=True,
        embedding_scale=False,
        feed_forward_width=20,
        rope_scaling=RopeScalingConfig(kind="llama3", factor=8.0, original_context=16),
    ),
]
NAMES = ["grouped-swiglu", "gelu", "untied", "lstm", "head-size-bias-llama3"]
VOCAB = 50


@functools.cache
def make(config: ModelConfig) -> tuple[Network, Params]:
    network = build(config, VOCAB)
    params = jax.jit(network.init)(jax.random.key(0))
    # biases and norms begin as zeros and ones, which would hide them
    rng = np.random.default_rng(5)
    return network, jax.tree.map(
        lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32) * (x.ndim == 1), params
    )


@functools.cache
def compiled(config: ModelConfig) -> tuple[Callable, Callable]:
    network, _ = make(config)
    return jax.jit(network.apply), jax.jit(functools.partial(decode, network))


def forward(config: ModelConfig, tokens: np.ndarray) -> np.ndarray:
    """Hidden states of whole sequences at once, by one program: what follows is not seen."""
    padded = np.zeros((4, 20), int)
    padded[: len(tokens), : tokens.shape[1]] = tokens
    hidden, _, _ = compiled(config)[0](make(config)[1], padded, np.zeros_like(padded))
    return np.asarray(hidden)[: len(tokens), : tokens.shape[1]]


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_every_position_equals_the_forward_pass(config: ModelConfig) -> None:
    network, params = make(config)
    tokens = np.random.default_rng(0).integers(0, VOCAB, (3, 12))
    want = forward(config, tokens)
    cache = empty_cache(network, params, 3, 12)
    step = compiled(config)[1]
    for place in range(12):
        hidden, _, cache = step(params, cache, tokens[:, place], np.ones(3, bool))
        np.testing.assert_allclose(hidden, want[:, place], atol=2e-5)


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_rows_can_be_reordered_copied_and_left_alone(config: ModelConfig) -> None:
    """As a beam does: each row remains the sequence that its history says it is."""
    network, params = make(config)
    rng = np.random.default_rng(1)
    step = compiled(config)[1]
    cache = empty_cache(network, params, 4, 16)
    histories: list[list[int]] = [[] for _ in range(4)]
    for time in range(12):
        index = rng.integers(0, 4, 4) if time else np.arange(4)
        cache = jax.tree.map(lambda x, at=index: x[at], cache)
        histories = [list(histories[i]) for i in index]
        tokens, active = rng.integers(0, VOCAB, 4), rng.random(4) < 0.7
        hidden, _, cache = step(params, cache, tokens, active)
        for row in np.flatnonzero(active):
            histories[row].append(int(tokens[row]))
            want = forward(config, np.array([histories[row]]))[0, -1]
            np.testing.assert_allclose(hidden[row], want, atol=2e-5)


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_prefixes_of_different_lengths_are_read_at_once(config: ModelConfig) -> None:
    network, params = make(config)
    tokens = np.random.default_rng(2).integers(0, VOCAB, (4, 9))
    counts = np.array([1, 9, 4, 6])
    read = jax.jit(functools.partial(prefill, network), static_argnums=3)
    hidden, _, cache = read(params, tokens, counts, 16)
    more, _, _ = compiled(config)[1](params, cache, np.array([7, 8, 9, 10]), np.ones(4, bool))
    for row, count in enumerate(counts):
        sequence = np.append(tokens[row, :count], 7 + row)[None]
        want = forward(config, sequence)[0]
        np.testing.assert_allclose(hidden[row], want[-2], atol=2e-5)
        np.testing.assert_allclose(more[row], want[-1], atol=2e-5)


def test_a_full_cache_forgets_the_oldest_token() -> None:
    """In one layer a token sees others' embeddings alone: so the forward pass of the last ones."""
    config = ModelConfig(width=32, depth=1, heads=4, kv_heads=2)
    network, params = make(config)
    tokens = np.random.default_rng(3).integers(0, VOCAB, (2, 20))
    cache = empty_cache(network, params, 2, 6)
    for place in range(20):
        hidden, _, cache = compiled(config)[1](params, cache, tokens[:, place], np.ones(2, bool))
        seen = tokens[:, max(0, place - 5) : place + 1]
        np.testing.assert_allclose(hidden, forward(config, seen)[:, -1], atol=2e-5)


@pytest.mark.parametrize("shape", [(512, 256), (256, 512), (511, 256)])
@pytest.mark.parametrize("weights", [np.float32, jax.numpy.bfloat16])
def test_the_product_of_one_row_and_a_large_matrix_is_exact_to_rounding(
    shape: tuple[int, int], weights: type
) -> None:
    rng = np.random.default_rng(0)
    kernel = jax.numpy.asarray(rng.normal(size=shape), weights)
    for rows in (1, 2):
        x = rng.normal(size=(rows, 1, shape[0])).astype(weights)
        found = jax.jit(product)(x.astype(np.float32), kernel)
        exact = x.astype(np.float64) @ np.asarray(kernel).astype(np.float64)
        assert found.shape == exact.shape
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, exact, atol=2e-4)
