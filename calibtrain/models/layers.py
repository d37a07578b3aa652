"""Layers that the models share: linear maps, the vocabulary, rotary positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from calibtrain.config import RopeScalingConfig
from calibtrain.models.fusion import kept_on_gpus
from calibtrain.models.one_row import product

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

NOT_SCALED = RopeScalingConfig()


@jax.custom_vjp
def _multiply(
    x: Float[Array, "*batch fan_in"], kernel: Float[Array, "fan_in fan_out"]
) -> Float[Array, "*batch fan_out"]:
    return product(x, kernel)


def _multiply_forward(x: Array, kernel: Array) -> tuple[Array, tuple]:
    # On a GPU, XLA would merge small products with the same x, and copy the parts of the result.
    # Behind a barrier of its own, each product has its own x.
    return jnp.matmul(*kept_on_gpus((x, kernel))), (x, kernel)


def _multiply_backward(residuals: tuple, gradient: Array) -> tuple[Array, Array]:
    # The kernel's gradient sums over tokens, for which one operand is transposed in memory: here
    # always the narrower one. Automatic differentiation transposes the gradient, however wide.
    x, kernel = residuals
    inputs, outputs = (y.reshape(-1, y.shape[-1]) for y in (x, gradient))
    over_tokens = (((0,), (0,)), ((), ()))
    if kernel.shape[0] <= kernel.shape[1]:
        to_kernel = jax.lax.dot_general(inputs, outputs, over_tokens)
    else:
        to_kernel = jax.lax.dot_general(outputs, inputs, over_tokens).T
    return gradient @ kernel.T, to_kernel


_multiply.defvjp(_multiply_forward, _multiply_backward)


class Linear(nnx.Module):
    """y = x W, or x W + b. W is drawn with variance scale^2 / fan_in; b starts at 0."""

    def __init__(
        self,
        fan_in: int,
        fan_out: int,
        *,
        rngs: nnx.Rngs,
        scale: float = 1.0,
        bias: bool = False,
    ):
        draw = jax.random.normal(rngs.params(), (fan_in, fan_out), jnp.float32)
        self.kernel = nnx.Param(draw * scale * fan_in**-0.5)
        self.bias = nnx.Param(jnp.zeros((fan_out,), jnp.float32)) if bias else None

    def __call__(self, x: Float[Array, "*batch fan_in"]) -> Float[Array, "*batch fan_out"]:
        kernel = self.kernel[...]
        if kernel.dtype == jnp.float32:
            y = _multiply(x, kernel.astype(x.dtype))
        else:  # kept in a narrower type for decoding
            y = product(x, kernel).astype(x.dtype)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Vocabulary(nnx.Module):
    """The embedding and the unembedding of a model; both are one table when tied.

    Tables have one row per vocabulary entry, drawn with standard deviation `width ** -0.5`. With
    `scaled`, embedded tokens are multiplied by `width ** 0.5`, and so have unit variance.
    """

    def __init__(
        self,
        vocab_size: int,
        width: int,
        dtype: jnp.dtype,
        *,
        tied: bool,
        rngs: nnx.Rngs,
        scaled: bool = True,
    ):
        def table() -> nnx.Param:
            draw = jax.random.normal(rngs.params(), (vocab_size, width), jnp.float32)
            return nnx.Param(draw * width**-0.5)

        self.dtype, self.scaled = dtype, scaled
        self.embedding = table()
        self.unembedding = None if tied else table()

    def embed(self, tokens: Int[Array, "*batch"]) -> Float[Array, "*batch width"]:
        """Returns rows of the embedding, in the type that the layers compute in."""
        rows = self.embedding[...][tokens].astype(self.dtype)
        return rows * self.embedding.shape[-1] ** 0.5 if self.scaled else rows

    def columns(self) -> Float[Array, "width vocab"]:
        """Returns the unembedding as `readout` takes it, one column per vocabulary entry."""
        table = self.embedding if self.unembedding is None else self.unembedding
        return table[...].astype(self.dtype).T


def rotary_frequencies(
    size: int, base: float, scaling: RopeScalingConfig = NOT_SCALED
) -> Float[Array, " half"]:
    """Returns radians per token of each pair of a head's dimensions (Su et al. 2021).

    Scaling `linear` divides all frequencies by the factor (Chen et al. 2023). `llama3` divides
    those whose wave is longer than original_context / low_frequency_factor, leaves those whose wave
    is shorter than original_context / high_frequency_factor, and interpolates between the two
    linearly in original_context / wave length (Llama 3.1's reference code).
    """
    half = size // 2
    frequency = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    if scaling.kind == "none":
        return frequency
    if scaling.kind == "linear":
        return frequency / scaling.factor
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    waves = scaling.original_context * frequency / (2 * jnp.pi)  # in the original context
    kept = jnp.clip((waves - low) / (high - low), 0.0, 1.0)
    return frequency * (kept + (1 - kept) / scaling.factor)


def rotary_angles(time: int, frequency: Float[Array, " half"]) -> Float[Array, "2 time size"]:
    """Returns cosines and signed sines of the rotary positions 0 .. time (Su et al. 2021).

    Rotary positions are relative, so positions in a row serve as positions in a document.
    """
    return rotary_angles_at(jnp.arange(time), frequency)


def rotary_angles_at(
    places: Int[Array, " time"], frequency: Float[Array, " half"]
) -> Float[Array, "2 time size"]:
    """Returns cosines and signed sines of any rotary positions."""
    angle = places.astype(jnp.float32)[:, None] * frequency
    cosine, sine = jnp.cos(angle), jnp.sin(angle)
    return jnp.stack(
        [jnp.concatenate([cosine, cosine], -1), jnp.concatenate([-sine, sine], axis=-1)]
    )


def rotate(
    x: Float[Array, "batch time heads size"], angles: Float[Array, "2 time size"]
) -> Float[Array, "batch time heads size"]:
    """Rotates pairs of dimensions, of the first and second half of a head, by `rotary_angles`."""
    cosine, sine = angles[:, :, None].astype(x.dtype)
    return x * cosine + jnp.roll(x, x.shape[-1] // 2, axis=-1) * sine
