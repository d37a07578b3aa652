"""The largest logits of each token, without sorting the vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.readout.token_stats import BLOCK, first_place

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int


def largest(
    logits: Float[Array, "tokens vocab"], count: int
) -> tuple[Float[Array, "tokens count"], Int[Array, "tokens count"]]:
    """Returns the largest logits of each token, the first of equal ones first, and their columns.

    What `jax.lax.top_k` returns, for a small count. Within a larger program a CPU computes `top_k`
    by sorting the whole vocabulary; here each further one costs a look at the maxima of blocks, and
    at one block.
    """
    given, logits = logits, jnp.maximum(logits, jnp.finfo(logits.dtype).min)  # -inf means taken
    vocab = logits.shape[-1]
    size = max(n for n in range(1, BLOCK + 1) if vocab % n == 0)
    blocks = logits.reshape(-1, vocab // size, size)
    maxima = jax.lax.optimization_barrier(jnp.max(blocks, axis=-1))
    numbers, places = jnp.arange(vocab // size), jnp.arange(size)
    columns: list[Array] = []
    for _ in range(count):
        top = jnp.max(maxima, axis=-1)
        block = first_place(maxima, top)
        own = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
        for column in columns:  # those that were found before
            taken = (column // size == block)[:, None] & (places == (column % size)[:, None])
            own = jnp.where(taken, -jnp.inf, own)
        place = first_place(own, top)
        columns.append(block * size + place)
        rest = jnp.max(jnp.where(places == place[:, None], -jnp.inf, own), axis=-1)
        maxima = jnp.where(numbers == block[:, None], rest[:, None], maxima)
    found = jnp.stack(columns, axis=-1)
    return jnp.take_along_axis(given, found, axis=-1), found
