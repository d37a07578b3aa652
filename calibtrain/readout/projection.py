"""Multiplies hidden states by the unembedding and reduces them to `TokenStats`, chunk by chunk.

Losses, metrics and temperature heads need a handful of numbers per token, never the logits
themselves. Hidden states meet the vocabulary only in this room: a chunk of tokens is multiplied by
the unembedding, reduced to those numbers, and forgotten; the backward pass computes the chunk
again. Peak memory is therefore (chunk x vocabulary), whatever the number of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.readout.chunks import Chunks
from calibtrain.readout.cotangents import Cotangents
from calibtrain.readout.token_stats import (
    FIELDS,
    Functional,
    TokenStats,
    kept_on_cpus,
    statistics,
)

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int


def readout(
    hidden: Float[Array, "*tokens width"],
    unembedding: Float[Array, "width vocab"],
    labels: Int[Array, "*tokens"],
    *,
    temperature: Float[Array, "*tokens"] | float | None = None,
    vocab_size: int | None = None,
    soft_cap: float | None = None,
    chunk: int | None = None,
    fields: Sequence[str] = FIELDS,
    functionals: Mapping[str, Functional] | None = None,
) -> TokenStats:
    """Reduce the logits `soft_cap(hidden @ unembedding) / temperature` to per-token statistics.

    Differentiable with respect to hidden states, unembedding and temperature. The logits and all
    that follows are float32, whatever the type of the inputs.

    Args:
        hidden: final hidden states, any leading shape.
        unembedding: one column per vocabulary entry.
        labels: target of each token, in [0, vocab_size).
        temperature: divides the logits; a scalar, or one per token (broadcast to their shape).
        vocab_size: columns from here on only pad the vocabulary and get probability 0.
        soft_cap: logits become soft_cap * tanh(logits / soft_cap), before the temperature.
        chunk: tokens multiplied at once; default: `chunks.default_chunk`.
        fields: the statistics wanted; the others are None and cost nothing.
        functionals: further per-token functionals of the logits, run inside the same pass.

    Returns:
        Statistics of the tokens' leading shape.

    Raises:
        ValueError: for an unknown field or shapes that do not fit.
    """
    check_fields(fields)
    tokens = Chunks.of(hidden, unembedding, labels, vocab_size, chunk)
    inverse = inverse_of(temperature, labels.shape)

    @jax.checkpoint  # the backward pass computes a chunk's logits again instead of keeping them
    def reduce_chunk(unembedding: Array, inputs: tuple[Any, ...]) -> TokenStats:
        hidden, labels, inverse = inputs
        product = jnp.matmul(hidden, unembedding, preferred_element_type=jnp.float32)
        logits = scaled_logits(product, soft_cap, inverse)
        return statistics(logits, labels, tokens.vocab_size, fields, functionals)

    columns = unembedding.astype(hidden.dtype)
    inputs = (tokens.split(hidden), tokens.split(labels), tokens.split(inverse))
    _, stats = tokens.scan(lambda carry, x: (carry, reduce_chunk(columns, x)), None, inputs)
    return tokens.join(stats)


def probabilities(
    hidden: Float[Array, "rows width"],
    unembedding: Float[Array, "width vocab"],
    *,
    temperature: Float[Array, " rows"] | float | None = None,
    soft_cap: float | None = None,
) -> Float[Array, "rows vocab"]:
    """The next-token distribution of a few hidden states in float32, as decoding needs it.

    It is over the given columns: an entry whose column is left out gets no probability.
    """
    return jax.nn.softmax(_logits(hidden, unembedding, temperature, soft_cap), axis=-1)


def log_probabilities(
    hidden: Float[Array, "rows width"],
    unembedding: Float[Array, "width vocab"],
    *,
    temperature: Float[Array, " rows"] | float | None = None,
    soft_cap: float | None = None,
) -> Float[Array, "rows vocab"]:
    """The logarithms of `probabilities`, in nats."""
    return jax.nn.log_softmax(_logits(hidden, unembedding, temperature, soft_cap), axis=-1)


def _logits(hidden: Array, unembedding: Array, temperature: Any, soft_cap: float | None) -> Array:
    # columns that are kept in a narrower type for decoding are multiplied in it
    kept = unembedding.dtype if unembedding.dtype == jnp.bfloat16 else hidden.dtype
    product = jnp.matmul(
        hidden.astype(kept), unembedding.astype(kept), preferred_element_type=jnp.float32
    )
    return scaled_logits(product, soft_cap, inverse_of(temperature, product.shape[:1]))


def additive_loss(
    hidden: Float[Array, "*tokens width"],
    unembedding: Float[Array, "width vocab"],
    labels: Int[Array, "*tokens"],
    weights: Float[Array, "*tokens"],
    per_token: Callable[[TokenStats], Float[Array, "*tokens"]],
    *,
    temperature: Float[Array, "*tokens"] | float | None = None,
    vocab_size: int | None = None,
    soft_cap: float | None = None,
    chunk: int | None = None,
    fields: Sequence[str] = ("nll",),
    functionals: Mapping[str, Functional] | None = None,
    cotangents: Sequence[Cotangents] = (),
) -> tuple[Float[Array, ""], TokenStats]:
    """Returns sum_t weights_t * per_token(stats)_t, and the statistics, from one product.

    Because the loss is a sum over tokens, a chunk's gradient is known as soon as its logits are:
    it is computed in the forward pass and kept, so that nothing is multiplied twice (`readout`
    multiplies each chunk once more on the way back).

    Args:
        hidden: as for `readout`, as are the arguments not named here.
        unembedding: its gradient is summed in float32.
        labels: target of each token.
        weights: weight of each token in the sum; no gradient flows to them.
        per_token: the loss of each token, from the statistics of a chunk; like `functionals`, it
            must not close over what is differentiated.
        fields: the statistics wanted; those that `per_token` reads must be among them.
        functionals: likewise.
        cotangents: added to the gradient, not to the sum, by losses that couple tokens.

    Returns:
        The sum, differentiable with respect to hidden states, unembedding and temperature; and
        the statistics, which are not.

    Raises:
        ValueError: for an unknown field or shapes that do not fit.
    """
    fields = tuple(dict.fromkeys((*fields, *(name for own in cotangents for name in own.fields))))
    functionals = dict(functionals or {})
    for own in cotangents:
        functionals |= own.functionals
    check_fields(fields)
    tokens = Chunks.of(hidden, unembedding, labels, vocab_size, chunk)
    split_labels = tokens.split(labels)
    split_weights = tokens.split(jax.lax.stop_gradient(weights))
    split_slopes = [
        jax.tree.map(tokens.split, (each.by_token, each.weights)) for each in cotangents
    ]

    def chunk_loss(product: Array, inverse: Any, labels: Array, weights: Array) -> Any:
        logits = scaled_logits(product, soft_cap, inverse)
        stats = statistics(logits, labels, tokens.vocab_size, fields, functionals)
        return jnp.sum(per_token(stats) * weights), stats, logits

    def with_cotangents(
        product: Array, inverse: Any, labels: Array, weights: Array, slopes: Any
    ) -> Any:
        loss, stats, logits = chunk_loss(product, inverse, labels, weights)
        real = tokens.masked(logits)
        total = loss
        for each, (by_token, own) in zip(cotangents, slopes, strict=True):
            total += each.inner_product(by_token, own, stats, real, labels)
        return total, (loss, stats)

    def value(hidden: Array, unembedding: Array, inverse: Any) -> Any:
        columns = unembedding.astype(hidden.dtype)

        def add(total: Array, x: Any) -> Any:
            hidden, inverse, labels, weights = x
            product = jnp.matmul(hidden, columns, preferred_element_type=jnp.float32)
            loss, stats, _ = chunk_loss(product, inverse, labels, weights)
            return total + loss, stats

        inputs = (tokens.split(hidden), tokens.split(inverse), split_labels, split_weights)
        loss, stats = tokens.scan(add, jnp.zeros((), jnp.float32), inputs)
        return loss, tokens.join(stats)

    def value_and_gradient(hidden: Array, unembedding: Array, inverse: Any) -> Any:
        columns = unembedding.astype(hidden.dtype)

        def add(total: Any, x: Any) -> Any:
            hidden, inverse, labels, weights, slopes = x
            product = jnp.matmul(hidden, columns, preferred_element_type=jnp.float32)
            _, pull_back, (loss, stats) = jax.vjp(
                lambda product, inverse: with_cotangents(product, inverse, labels, weights, slopes),
                product,
                inverse,
                has_aux=True,
            )
            to_product, to_inverse = pull_back(jnp.ones_like(loss))
            to_product = to_product.astype(hidden.dtype)
            to_hidden = jnp.matmul(to_product, columns.T)
            to_columns = jnp.matmul(hidden.T, to_product, preferred_element_type=jnp.float32)
            return (total[0] + loss, total[1] + to_columns), (stats, to_hidden, to_inverse)

        start = (jnp.zeros((), jnp.float32), jnp.zeros(unembedding.shape, jnp.float32))
        split = tokens.split
        inputs = (split(hidden), split(inverse), split_labels, split_weights, split_slopes)
        (loss, to_unembedding), (stats, to_hidden, to_inverse) = tokens.scan(add, start, inputs)
        gradients = (
            tokens.join(to_hidden),
            to_unembedding.astype(unembedding.dtype),
            tokens.join(to_inverse),
        )
        return (loss, tokens.join(stats)), gradients

    def scaled(gradients: Any, cotangent: Any) -> Any:
        return jax.tree.map(lambda g: (g * cotangent[0]).astype(g.dtype), gradients)

    total = jax.custom_vjp(value)
    total.defvjp(value_and_gradient, scaled)
    loss, stats = total(hidden, unembedding, inverse_of(temperature, labels.shape))
    return loss, jax.lax.stop_gradient(stats)


def check_fields(fields: Sequence[str]) -> None:
    """Raises a ValueError for a field that `readout` cannot compute."""
    unknown = set(fields) - set(FIELDS)
    if unknown:
        raise ValueError(f"fields: {sorted(unknown)} unknown; allowed: {', '.join(FIELDS)}")


def inverse_of(temperature: Any, shape: tuple[int, ...]) -> Any:
    """1 / temperature of each token; None without a temperature."""
    if temperature is None:
        return None
    return jnp.broadcast_to(1.0 / jnp.asarray(temperature, jnp.float32), shape)


def scaled_logits(product: Array, soft_cap: float | None, inverse: Any) -> Array:
    """The logits of a product: capped, then divided by the temperature."""
    if soft_cap is None and inverse is None:
        return product
    if soft_cap is not None:
        product = soft_cap * jnp.tanh(product / soft_cap)
    if inverse is not None:
        product = product * inverse[:, None]
    return kept_on_cpus(product)  # so that every reader sees the same rounding of a logit
