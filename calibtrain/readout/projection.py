"""Hidden states x unembedding -> `TokenStats`, a chunk of tokens at a time.

Losses, metrics and temperature heads need a handful of numbers a token, never the logits
themselves. Here, and only here, hidden states meet the vocabulary: a chunk of tokens is multiplied
by the unembedding, reduced to those numbers, and forgotten; the backward pass computes the chunk
again. Peak memory is therefore (chunk x vocabulary), whatever the number of tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.readout.chunks import Chunks
from calibtrain.readout.token_stats import (
    FIELDS,
    Functional,
    TokenStats,
    first_largest,
    is_entry,
    kept_on_cpus,
    statistics,
)

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

__all__ = [
    "FIELDS",
    "Cotangents",
    "Functional",
    "Reduction",
    "TokenStats",
    "accumulate",
    "additive_loss",
    "first_largest",
    "is_entry",
    "probabilities",
    "readout",
    "statistics",
]


Reduction = Callable[[Array, Array, Array], Any]
"""Reduces a chunk: (logits [tokens, vocab], labels [tokens], weights [tokens]) -> arrays that add
up over chunks."""


@dataclasses.dataclass(frozen=True)
class Cotangents:
    """Derivatives of a loss that couples tokens, with respect to what it reads of them.

    Attributes:
        stats: one derivative for each statistic of each token (0 for tokens that the loss does not
            read), and one for each of the sums.
        weights: weights of the tokens in the sums.
        reduction: computes the sums from a chunk's logits; None if the loss reads no sums.
    """

    stats: TokenStats
    weights: Float[Array, "*tokens"]
    reduction: Reduction | None = None

    @property
    def by_token(self) -> TokenStats:
        """Derivatives with respect to statistics of tokens, without those of the sums."""
        return dataclasses.replace(self.stats, sums={})

    def inner_product(
        self, by_token: TokenStats, weights: Array, stats: TokenStats, logits: Array, labels: Array
    ) -> Array:
        """Returns the sum of derivative times statistic over a chunk."""
        pairs = [(slope, stats.extra[name]) for name, slope in by_token.extra.items()]
        for field in FIELDS:
            if getattr(by_token, field) is not None:
                pairs.append((getattr(by_token, field), getattr(stats, field)))
        if self.reduction is not None:
            sums = self.reduction(logits, labels, weights)
            pairs.extend((slope, sums[name]) for name, slope in self.stats.sums.items())
        return sum((jnp.sum(slope * value) for slope, value in pairs), start=jnp.zeros(()))


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
        unembedding: one column a vocabulary entry.
        labels: target of each token, in [0, vocab_size).
        temperature: divides the logits; a scalar, or one a token (broadcast to the tokens' shape).
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
    _check_fields(fields)
    tokens = Chunks.of(hidden, unembedding, labels, vocab_size, chunk)
    inverse = _inverse(temperature, labels.shape)

    @jax.checkpoint  # the backward pass computes a chunk's logits again instead of keeping them
    def reduce_chunk(unembedding: Array, inputs: tuple[Any, ...]) -> TokenStats:
        hidden, labels, inverse = inputs
        product = jnp.matmul(hidden, unembedding, preferred_element_type=jnp.float32)
        logits = _logits(product, soft_cap, inverse)
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
    """The whole next-token distribution of a few hidden states, float32: what decoding needs.

    Over the columns that are given: leave one out, and its entry is no event.
    """
    product = jnp.matmul(
        hidden, unembedding.astype(hidden.dtype), preferred_element_type=jnp.float32
    )
    inverse = _inverse(temperature, product.shape[:1])
    return jax.nn.softmax(_logits(product, soft_cap, inverse), axis=-1)


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
    """sum_t weights_t * per_token(stats)_t, and the statistics, from one product with the logits.

    Because the loss is a sum over tokens, a chunk's gradient is known as soon as its logits are:
    it is computed in the forward pass and kept, so that nothing is multiplied twice (`readout`
    multiplies each chunk once more on the way back). A loss that couples tokens is not such a sum,
    but its gradient is that of one: the sum of its statistics times its `cotangents`.

    Args:
        hidden: as for `readout`, as are the arguments not named here.
        unembedding: its gradient is summed in float32.
        labels: target of each token.
        weights: of the tokens in the sum; no gradient flows to them.
        per_token: the loss of each token, from the statistics of a chunk; it (as `functionals`)
            must not close over what is differentiated.
        fields: the statistics wanted; those that `per_token` and `cotangents` read must be among
            them.
        functionals: likewise.
        cotangents: of losses that couple tokens; added to the gradient, not to the sum.

    Returns:
        The sum, differentiable with respect to hidden states, unembedding and temperature; and
        the statistics, which are not.

    Raises:
        ValueError: for an unknown field or shapes that do not fit.
    """
    _check_fields(fields)
    tokens = Chunks.of(hidden, unembedding, labels, vocab_size, chunk)
    split_labels = tokens.split(labels)
    split_weights = tokens.split(jax.lax.stop_gradient(weights))
    split_slopes = [
        jax.tree.map(tokens.split, (each.by_token, each.weights)) for each in cotangents
    ]

    def chunk_loss(product: Array, inverse: Any, labels: Array, weights: Array) -> Any:
        logits = _logits(product, soft_cap, inverse)
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
    loss, stats = total(hidden, unembedding, _inverse(temperature, labels.shape))
    return loss, jax.lax.stop_gradient(stats)


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
    """The sum over chunks of what `reduction` makes of their logits, and statistics, in one pass.

    For what is not a number a token, such as sums by vocabulary entry
    (`metrics.VocabularyTable.of`). Differentiable as `readout` is.

    Args:
        hidden: as for `readout`, as are the arguments not named here.
        weights: handed to `reduction`; what pads the last chunk weighs 0.
        reduction: sees logits as they leave cap and temperature, with padding columns masked.
        fields: the statistics wanted beside it; default: none.

    Raises:
        ValueError: for an unknown field or shapes that do not fit.
    """
    _check_fields(fields)
    tokens = Chunks.of(hidden, unembedding, labels, vocab_size, chunk)
    columns = unembedding.astype(hidden.dtype)
    inputs = (
        tokens.split(hidden),
        tokens.split(labels),
        tokens.split(weights),
        tokens.split(_inverse(temperature, labels.shape)),
    )

    @jax.checkpoint  # as in `readout`
    def reduce_chunk(columns: Array, x: Any) -> Any:
        hidden, labels, weights, inverse = x
        product = jnp.matmul(hidden, columns, preferred_element_type=jnp.float32)
        logits = _logits(product, soft_cap, inverse)
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


def _check_fields(fields: Sequence[str]) -> None:
    unknown = set(fields) - set(FIELDS)
    if unknown:
        raise ValueError(f"fields: {sorted(unknown)} unknown; allowed: {', '.join(FIELDS)}")


def _inverse(temperature: Any, shape: tuple[int, ...]) -> Any:
    """One over the temperature of each token; None where there is none."""
    if temperature is None:
        return None
    return jnp.broadcast_to(1.0 / jnp.asarray(temperature, jnp.float32), shape)


def _logits(product: Array, soft_cap: float | None, inverse: Any) -> Array:
    if soft_cap is None and inverse is None:
        return product
    if soft_cap is not None:
        product = soft_cap * jnp.tanh(product / soft_cap)
    if inverse is not None:
        product = product * inverse[:, None]
    return kept_on_cpus(product)  # so that every reader sees the same rounding of a logit
