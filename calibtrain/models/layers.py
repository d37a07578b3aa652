"""The pieces that the models share: parameters, linear maps, norms, rotary positions, attention."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int


class Linear(nnx.Module):
    """y = x W, without bias; W is drawn with variance scale^2 / fan_in."""

    def __init__(self, fan_in: int, fan_out: int, *, rngs: nnx.Rngs, scale: float = 1.0):
        draw = jax.random.normal(rngs.params(), (fan_in, fan_out), jnp.float32)
        self.kernel = nnx.Param(draw * scale * fan_in**-0.5)

    def __call__(self, x: Float[Array, "*batch fan_in"]) -> Float[Array, "*batch fan_out"]:
        return x @ self.kernel[...].astype(x.dtype)


class RMSNorm(nnx.Module):
    """x / sqrt(mean x^2 + epsilon) * scale, computed in float32 (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        exact = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(exact), axis=-1, keepdims=True) + self.epsilon)
        return (exact * inverse * self.scale[...]).astype(x.dtype)


class Vocabulary(nnx.Module):
    """Both ends of a model: the embedding, and the unembedding (the same table when tied).

    Tables have one row a vocabulary entry, drawn with standard deviation `width ** -0.5`; embedded
    tokens are scaled back to unit size.
    """

    def __init__(
        self, vocab_size: int, width: int, dtype: jnp.dtype, *, tied: bool, rngs: nnx.Rngs
    ):
        def table() -> nnx.Param:
            draw = jax.random.normal(rngs.params(), (vocab_size, width), jnp.float32)
            return nnx.Param(draw * width**-0.5)

        self.dtype = dtype
        self.embedding = table()
        self.unembedding = None if tied else table()

    def embed(self, tokens: Int[Array, "*batch"]) -> Float[Array, "*batch width"]:
        """Rows of the embedding, in the type that the layers compute in."""
        return self.embedding[...][tokens].astype(self.dtype) * self.embedding.shape[-1] ** 0.5

    def columns(self) -> Float[Array, "width vocab"]:
        """The unembedding as `readout` takes it."""
        table = self.embedding if self.unembedding is None else self.unembedding
        return table[...].astype(self.dtype).T


def rotate(
    x: Float[Array, "batch time heads size"], positions: Int[Array, "batch time"], base: float
) -> Float[Array, "batch time heads size"]:
    """Rotary positions (Su et al. 2021), first half of a head against the second."""
    half = x.shape[-1] // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[..., None, None].astype(jnp.float32) * frequency
    cosine, sine = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    )


def causal_mask(segments: Int[Array, "batch time"]) -> Bool[Array, "batch time time"]:
    """Who sees whom: tokens of the same document (segment) that are not later."""
    time = segments.shape[-1]
    earlier = jnp.tril(jnp.ones((time, time), bool))
    return (segments[:, :, None] == segments[:, None, :]) & earlier


def attend(
    query: Float[Array, "batch time heads size"],
    key: Float[Array, "batch time kv_heads size"],
    value: Float[Array, "batch time kv_heads size"],
    mask: Bool[Array, "batch time time"],
) -> Float[Array, "batch time heads size"]:
    """Scaled dot-product attention; query heads share key and value heads in groups.

    A plain batched product: on the CPU it is about twice as fast as XLA's own attention call.
    """
    batch, time, heads, size = query.shape
    groups = heads // key.shape[2]
    query = query.reshape(batch, time, key.shape[2], groups, size)
    scores = jnp.einsum("btkgh,bskh->bkgts", query, key, preferred_element_type=jnp.float32) * (
        size**-0.5
    )
    scores = jnp.where(mask[:, None, None], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, value).reshape(batch, time, heads, size)
