"""The product of a layer's inputs and its matrix; a single row is shared out over threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float

_LARGE = 1 << 16  # entries of a matrix that two threads read


def product(
    x: Float[Array, "*batch fan_in"], kernel: Float[Array, "fan_in fan_out"]
) -> Float[Array, "*batch fan_out"]:
    """Returns x W in float32, or in the type of x where both factors have it.

    A single row waits for the matrix to be read. On a CPU it is the sum of two products, over half
    of the inputs each, because XLA shares out a batch of products over threads, but not every
    single product (a token of SmolLM2-135M then takes 0.92 of the time).
    """
    halved = x.size == x.shape[-1] and kernel.size >= _LARGE and kernel.shape[0] % 2 == 0
    exact = x.dtype if x.dtype == kernel.dtype else jnp.float32
    x = x.astype(kernel.dtype)
    if not halved or jax.default_backend() != "cpu":
        return jnp.matmul(x, kernel, preferred_element_type=exact)
    halves = x.reshape(2, -1), kernel.reshape(2, -1, kernel.shape[1])
    sums = jnp.einsum("hi,hio->ho", *halves, preferred_element_type=jnp.float32)
    return jnp.sum(sums, axis=0).reshape(*x.shape[:-1], -1).astype(exact)
