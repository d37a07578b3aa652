"""Models: who sees whom, equivalences, counts; against independent implementations."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from calibtrain.config import ModelConfig
from calibtrain.models import build, compute_dtype
from calibtrain.models.attention import attend, causal_mask
from calibtrain.models.layers import rotary_angles, rotary_frequencies, rotate
from calibtrain.models.lstm import LSTMLayer
from calibtrain.models.norm import RMSNorm
from calibtrain.models.size import count_parameters, forward_flops

KINDS = [
    ModelConfig(kind="transformer", width=32, depth=2, heads=4, kv_heads=2),
    ModelConfig(kind="transformer", width=32, depth=2, heads=4, mlp="gelu", qk_norm=False),
    ModelConfig(kind="lstm", width=32, depth=2),
]
NAMES = ["grouped-swiglu", "gelu", "lstm"]


@functools.cache
def compiled(config: ModelConfig) -> Callable[..., Any]:
    network = build(config, 50)
    params = jax.jit(network.init)(jax.random.key(0))
    return jax.jit(lambda tokens, segments: network.apply(params, tokens, segments)[0])


def hidden(config: ModelConfig, tokens: np.ndarray, segments: np.ndarray) -> np.ndarray:
    return np.asarray(compiled(config)(tokens, segments))


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_the_future_is_not_seen(config: ModelConfig) -> None:
    tokens = np.random.default_rng(0).integers(0, 50, (1, 20))
    changed = tokens.copy()
    changed[0, 12:] = (changed[0, 12:] + 1) % 50
    segments = np.zeros((1, 20), int)
    before, after = hidden(config, tokens, segments), hidden(config, changed, segments)
    np.testing.assert_allclose(before[0, :12], after[0, :12], atol=1e-6)
    assert np.abs(before[0, 12:] - after[0, 12:]).max() > 1e-3


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_packed_documents_are_as_if_alone(config: ModelConfig) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, 50, (1, 9)), rng.integers(0, 50, (1, 11))
    packed = np.concatenate([first, second], axis=1)
    segments = np.repeat([[0, 1]], [9, 11], axis=1)
    together = hidden(config, packed, segments)
    np.testing.assert_allclose(
        together[:, :9], hidden(config, first, np.zeros((1, 9), int)), atol=1e-5
    )
    np.testing.assert_allclose(
        together[:, 9:], hidden(config, second, np.zeros((1, 11), int)), atol=1e-5
    )


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_the_past_is_seen(config: ModelConfig) -> None:
    tokens = np.random.default_rng(2).integers(0, 50, (1, 20))
    changed = tokens.copy()
    changed[0, 0] = (changed[0, 0] + 1) % 50
    segments = np.zeros((1, 20), int)
    assert (
        np.abs(hidden(config, tokens, segments) - hidden(config, changed, segments))[0, -1].max()
        > 1e-6
    )


@pytest.mark.parametrize("time", [10, 135], ids=["one block", "blocks"])
@pytest.mark.parametrize("implementation", ["plain", "xla"])
def test_attention_and_its_gradients_equal_those_of_jax(time: int, implementation: str) -> None:
    rng = np.random.default_rng(3)
    query, key, value, out = (
        jnp.asarray(rng.normal(size=(2, time, heads, 8)), jnp.float32) for heads in (6, 2, 2, 6)
    )
    segments = jnp.asarray(np.sort(rng.integers(0, 3, (2, time)), axis=1))
    mask = causal_mask(segments)[:, None]

    def with_gradients(attention: Callable[..., Any]) -> tuple[Any, Any]:
        value_of, back = jax.vjp(attention, query, key, value)
        return value_of, back(out)

    want, theirs_of = jax.jit(with_gradients, static_argnums=0)(
        lambda *x: jax.nn.dot_product_attention(*x, mask=mask, implementation="xla")
    )
    got, ours_of = jax.jit(with_gradients, static_argnums=0)(
        lambda *x: attend(*x, segments, implementation)
    )
    np.testing.assert_allclose(got, want, atol=2e-5)
    for mine, theirs in zip(ours_of, theirs_of, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=5e-5)


@pytest.mark.parametrize("replicas", [None, 3])
def test_cudnn_is_asked_what_it_answers(
    replicas: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JAX's rules for it, of shapes and of `vmap`, are there without a GPU; its version is not."""
    version = "jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version"
    monkeypatch.setattr(version, lambda: 91000)

    def loss(query: jax.Array, segments: jax.Array) -> jax.Array:
        seen = attend(query, query, query, segments, "cudnn", mapped=replicas is not None)
        return jnp.sum(seen.astype(jnp.float32) ** 2)

    shape = (2, 16, 4, 8)
    query = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    segments = jax.ShapeDtypeStruct(shape[:2], jnp.int32)
    gradient = jax.grad(loss)
    if replicas is not None:
        query, segments = (
            jax.ShapeDtypeStruct((replicas, *x.shape), x.dtype) for x in (query, segments)
        )
        assert jax.eval_shape(jax.vmap(gradient), query, segments) == query
    else:
        assert jax.eval_shape(gradient, query, segments) == query


def branch_of_gpus(*operands: Any, cuda: Any = None, default: Any, **others: Any) -> Any:
    """In place of `jax.lax.platform_dependent`: what a GPU computes, computed here."""
    return (cuda or default)(*operands)


@pytest.mark.parametrize("platform", ["here", "gpu"])
def test_the_norm_and_its_gradients_equal_a_direct_float64_computation(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if platform == "gpu":
        monkeypatch.setattr(jax.lax, "platform_dependent", branch_of_gpus)
    rng = np.random.default_rng(5)
    x, scale, out = rng.normal(size=(3, 4, 16)), rng.normal(size=16), rng.normal(size=(3, 4, 16))
    graph = nnx.graphdef(RMSNorm(16, 1e-3))

    def ours(x: jax.Array, scale: jax.Array) -> jax.Array:
        return nnx.merge(graph, nnx.State({"scale": scale}))(x)

    def theirs(x: jax.Array, scale: jax.Array) -> jax.Array:
        return x / jnp.sqrt(jnp.mean(x**2, axis=-1, keepdims=True) + 1e-3) * scale

    single = [jnp.asarray(part, jnp.float32) for part in (x, scale, out)]
    value, back = jax.vjp(ours, *single[:2])
    got = [value, *back(single[2])]
    with jax.enable_x64(True):
        value, back = jax.vjp(theirs, jnp.asarray(x), jnp.asarray(scale))
        want = [np.asarray(part) for part in (value, *back(jnp.asarray(out)))]
    for mine, exact in zip(got, want, strict=True):
        np.testing.assert_allclose(mine, exact, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_a_model_with_what_gpus_compute_apart_has_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = build(ModelConfig(width=16, depth=2, heads=2), 32)
    params = network.init(jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 8), 0, 32)

    def loss(params: Any) -> jax.Array:
        hidden, unembedding, _ = network.apply(params, tokens, jnp.zeros_like(tokens))
        return jnp.sum(jnp.sin(hidden @ unembedding))

    here = jax.grad(loss)(params)
    monkeypatch.setattr(jax.lax, "platform_dependent", branch_of_gpus)
    jax.clear_caches()
    barriers = str(jax.make_jaxpr(jax.grad(loss))(params)).count("optimization_barrier")
    # two of each norm (four a layer and the last one), one of each product with a kernel
    assert barriers >= 2 * 9 + 2 * 7
    for own, other in zip(
        jax.tree.leaves(jax.grad(loss)(params)), jax.tree.leaves(here), strict=True
    ):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_the_lstm_layer_equals_that_of_flax() -> None:
    config = ModelConfig(kind="lstm", width=8, depth=1)
    ours = LSTMLayer(config, rngs=nnx.Rngs(0))
    theirs = nnx.OptimizedLSTMCell(8, 8, rngs=nnx.Rngs(1))
    x = jax.random.normal(jax.random.key(2), (2, 7, 8))

    # Flax keeps its gates in the order input, forget, candidate, output, as we do.
    theirs.dense_i.kernel[...] = ours.input.kernel[...]
    theirs.dense_h.kernel[...] = ours.recurrent.kernel[...]
    theirs.dense_h.bias[...] = ours.bias[...]
    carry = (jnp.zeros((2, 8)), jnp.zeros((2, 8)))
    outputs = []
    for time in range(7):
        carry, output = theirs(carry, ours.norm(x)[:, time])
        outputs.append(output)
    want = x + ours.out(jnp.stack(outputs, axis=1))
    got = ours(x, jnp.ones((2, 7), bool).at[:, 0].set(False))
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_rotary_scores_depend_on_distance_alone() -> None:
    rng = np.random.default_rng(4)
    query, key = (jnp.asarray(rng.normal(size=(1, 5, 1, 8)), jnp.float32) for _ in range(2))
    angles = rotary_angles(42, rotary_frequencies(8, 10_000.0))

    def scores(shift: int) -> jax.Array:
        here = angles[:, shift : shift + 5]
        return jnp.einsum("bthd,bshd->ts", rotate(query, here), rotate(key, here))

    np.testing.assert_allclose(scores(0), scores(37), atol=1e-4)
    assert np.abs(scores(0) - jnp.einsum("bthd,bshd->ts", query, key)).max() > 0.1


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_parameters_are_counted_by_role(config: ModelConfig) -> None:
    tied = count_parameters(config, 100)
    assert (tied.embedding, tied.unembedding) == (100 * 32, 0)
    untied = count_parameters(config.model_copy(update={"tied": False}), 100)
    assert (untied.embedding, untied.unembedding) == (100 * 32, 100 * 32)
    assert untied.body == tied.body
    assert count_parameters(config, 300).body == tied.body
    network = build(config, 100)
    leaves = jax.tree.leaves(network.init(jax.random.key(0)))
    assert tied.total == sum(leaf.size for leaf in leaves)


@pytest.mark.long
def test_parameters_stay_float32_whatever_layers_compute_in() -> None:
    config = ModelConfig(width=32, depth=1, heads=2, compute="bfloat16")
    network = build(config, 50)
    params = network.init(jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    tokens = jnp.zeros((1, 4), int)
    states, unembedding, _ = network.apply(params, tokens, tokens)
    assert states.dtype == unembedding.dtype == jnp.bfloat16
    assert compute_dtype(ModelConfig()) == jnp.float32  # the tests run on the CPU


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_analytic_flops_agree_with_the_compiler(config: ModelConfig) -> None:
    """XLA counts every pair of a causal row and the element-wise work too; so within a third."""
    config = config.model_copy(update={"width": 128})
    vocab, context = 512, 64
    network = build(config, vocab)
    params = jax.eval_shape(network.init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((1, context), jnp.int32)

    def logits(p, t, s):
        states, unembedding, _ = network.apply(p, t, s)
        return states @ unembedding

    analysis = jax.jit(logits).lower(params, tokens, tokens).compile().cost_analysis()
    ours = forward_flops(config, vocab, context) * context
    if config.kind == "lstm":  # the compiler counts a loop's body once
        ours -= config.depth * 2 * 4 * config.width**2 * (context - 1)
    assert 0.75 < ours / analysis["flops"] < 1.1
