"""RMSNorm, with a gradient that is written out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from calibtrain.models.fusion import kept_on_gpus

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float


@jax.custom_vjp
def _normalize(
    x: Float[Array, "*batch width"], scale: Float[Array, " width"], epsilon: float
) -> Float[Array, "*batch width"]:
    return _normalize_forward(x, scale, epsilon)[0]


def _normalize_forward(x: Array, scale: Array, epsilon: float) -> tuple[Array, tuple]:
    kept, factor = kept_on_gpus((x, scale))
    inverse = _inverse_root(kept, epsilon)
    output = (kept.astype(jnp.float32) * inverse * factor).astype(x.dtype)
    return output, (x, scale, inverse, epsilon)


def _inverse_root(x: Array, epsilon: Any) -> Array:
    """Returns 1 / sqrt(mean x^2 + epsilon) of each vector."""
    mean_square = jnp.mean(jnp.square(x.astype(jnp.float32)), axis=-1, keepdims=True)
    return jax.lax.rsqrt(mean_square + epsilon)


def _normalize_backward(residuals: tuple, gradient: Array) -> tuple[Array, Array, None]:
    # written out: automatic differentiation takes about three times as long on a CPU
    x, scale, inverse, epsilon = residuals
    x = kept_on_gpus(x)
    # A GPU reads x here anyhow; a root that is kept would cut its forward pass in two kernels.
    inverse = jax.lax.platform_dependent(
        x,
        inverse,
        cuda=lambda x, inverse: _inverse_root(x, epsilon),
        default=lambda x, inverse: inverse,
    )
    exact, gradient = x.astype(jnp.float32), gradient.astype(jnp.float32)
    scaled = gradient * scale
    along = jnp.mean(scaled * exact, axis=-1, keepdims=True) * inverse**3
    axes = tuple(range(x.ndim - 1))
    to_scale = jnp.sum(gradient * exact * inverse, axis=axes)
    return (scaled * inverse - exact * along).astype(x.dtype), to_scale, None


_normalize.defvjp(_normalize_forward, _normalize_backward)


class RMSNorm(nnx.Module):
    """x / sqrt(mean x^2 + epsilon) * scale, computed in float32 (Zhang & Sennrich 2019)."""

    def __init__(self, width: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return _normalize(x, self.scale[...], self.epsilon)
