"""Sums over the tokens of what a reduction makes of their logits, chunk by chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.readout.chunks import Chunks
from calibtrain.readout.cotangents import Reduction
from calibtrain.readout.projection import check_fields, inverse_of, scaled_logits
from calibtrain.readout.token_stats import Functional, TokenStats, statistics

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int


def accumulate(
    hidden: Float[Array, "*tokens width"],
    unembedding: Float[Array, "width vocab"],
    labels: Int[Array, "*tokens"],
    weights: Float[Array, "*tokens"],
    reduction: Reduction,
    *,
    temperature: Float[Array, "*tokens"] | float | None = None,
    vocab_size: int | None = None,
    soft_cap: float | None = None,
    chunk: int | None = None,
    fields: Sequence[str] = (),
    functionals: Mapping[str, Functional] | None = None,
) -> tuple[Any, TokenStats]:
    """Returns `reduction` of each chunk's logits, summed over chunks, and statistics, in one pass.

    It computes what is not one number per token, such as sums by vocabulary entry
    (`metrics.VocabularyTable.of`). It is differentiable as `readout` is.

    Args:
        hidden: as for `readout`, as are the arguments not named here.
        weights: handed to `reduction`; what pads the last chunk weighs 0.
        reduction: sees logits as they leave cap and temperature, with padding columns masked.
        fields: the statistics wanted besides; none by default.

    Raises:
        ValueError: for an unknown field or shapes that do not fit.
    """
    check_fields(fields)
    tokens = Chunks.of(hidden, unembedding, labels, vocab_size, chunk)
    columns = unembedding.astype(hidden.dtype)
    inputs = (
        tokens.split(hidden),
        tokens.split(labels),
        tokens.split(weights),
        tokens.split(inverse_of(temperature, labels.shape)),
    )

    @jax.checkpoint  # as in `readout`
    def reduce_chunk(columns: Array, x: Any) -> Any:
        hidden, labels, weights, inverse = x
        product = jnp.matmul(hidden, columns, preferred_element_type=jnp.float32)
        logits = scaled_logits(product, soft_cap, inverse)
        stats = statistics(logits, labels, tokens.vocab_size, fields, functionals)
        return reduction(tokens.masked(logits), labels, weights), stats

    def add(total: Any, x: Any) -> Any:
        part, stats = reduce_chunk(columns, x)
        return jax.tree.map(jnp.add, total, part), stats

    first = jax.tree.map(lambda array: array[0], inputs)
    shapes = jax.eval_shape(lambda x: reduce_chunk(columns, x)[0], first)
    start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, stats = tokens.scan(add, start, inputs)
    return total, tokens.join(stats)
