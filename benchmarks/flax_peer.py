"""The step one would write first: the same model in plain Flax NNX, whole logits, Optax's loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from calibtrain.config import ModelConfig


def _rotate(x: jax.Array) -> jax.Array:
    half = x.shape[-1] // 2
    angle = jnp.arange(x.shape[1])[:, None] * 10_000.0 ** (-jnp.arange(half) / half)
    cosine, sine = (f(angle)[:, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    first, second = jnp.split(x, 2, axis=-1)
    turned = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(turned, axis=-1)


class _Block(nnx.Module):
    def __init__(self, config: ModelConfig, dtype: jnp.dtype, rngs: nnx.Rngs):
        def linear(fan_in: int, fan_out: int) -> nnx.Linear:
            return nnx.Linear(fan_in, fan_out, use_bias=False, dtype=dtype, rngs=rngs)

        width, self.heads = config.width, config.heads
        size = width // config.heads
        self.norms = nnx.List([nnx.RMSNorm(width, dtype=dtype, rngs=rngs) for _ in range(2)])
        self.head_norms = nnx.List([nnx.RMSNorm(size, dtype=dtype, rngs=rngs) for _ in range(2)])
        self.qkv = nnx.List([linear(width, width) for _ in range(3)])
        self.out = linear(width, width)
        self.gate, self.up = linear(width, config.mlp_width), linear(width, config.mlp_width)
        self.down = linear(config.mlp_width, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.norms[0](x)
        query, key, value = (f(y).reshape(*x.shape[:2], self.heads, -1) for f in self.qkv)
        query, key = _rotate(self.head_norms[0](query)), _rotate(self.head_norms[1](key))
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.reshape(x.shape))
        y = self.norms[1](x)
        return x + self.down(nnx.silu(self.gate(y)) * self.up(y))


class _Model(nnx.Module):
    def __init__(self, config: ModelConfig, vocab: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.embedding = nnx.Embed(vocab, config.width, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List([_Block(config, dtype, rngs) for _ in range(config.depth)])
        self.norm = nnx.RMSNorm(config.width, dtype=dtype, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.embedding.attend(self.norm(x))


def make(
    config: ModelConfig, vocab: int, tokens: np.ndarray, dtype: jnp.dtype
) -> tuple[Callable[[], jax.Array], int]:
    """A function that takes one step, and the bytes of its temporaries."""
    graph, params = nnx.split(_Model(config, vocab, dtype, nnx.Rngs(0)), nnx.Param)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    inputs, labels = jnp.asarray(tokens[:, :-1]), jnp.asarray(tokens[:, 1:])

    def step(params: nnx.State, state: optax.OptState) -> tuple:
        def loss(params: nnx.State) -> jax.Array:
            logits = nnx.merge(graph, params)(inputs).astype(jnp.float32)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state = jax.jit(optimizer.init)(params)
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(params, state).compile()
    held = [params, state]

    def run() -> jax.Array:
        held[0], held[1], value = compiled(*held)
        return value

    return run, compiled.memory_analysis().temp_size_in_bytes
