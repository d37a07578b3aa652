"""Hidden states x unembedding -> `TokenStats`, a chunk of tokens at a time.

Losses, metrics and temperature heads need a handful of numbers a token, never the logits
themselves. Here, and only here, hidden states meet the vocabulary: a chunk of tokens is multiplied
by the unembedding, reduced to those numbers, and forgotten; the backward pass computes the chunk
again. Peak memory is therefore (chunk x vocabulary), whatever the number of tokens.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

CHUNK_ELEMENTS = 2**22
"""Logits held at once when no chunk is given: 16 MiB in float32."""

_MASKED = (
    -1e30
)  # finite, so that 0 * log 0 and its gradient stay 0 where a vocabulary row is padding

_ABSENT: Any = None

Functional = Callable[[Array, Array], Array]
"""A per-token functional: (logits [tokens, vocab], labels [tokens]) -> [tokens]."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenStats:
    """What losses and metrics read, one number a token. A field that was not asked for is None.

    Attributes:
        nll: -log p of the target, in nats.
        log_confidence: log of the largest probability.
        correct: 1 where the (first) most probable token is the target, else 0. No gradient.
        entropy: entropy of the predictive distribution, in nats.
        sum_squares: sum over the vocabulary of p^2.
        mean_log_prob: mean over the vocabulary of log p.
        rank: how many tokens are strictly more probable than the target. No gradient.
        runner_up: largest probability strictly below the target's; 0 if there is none.
        extra: values of the functionals that were passed in, by name.
    """

    nll: Float[Array, "*tokens"] = _ABSENT
    log_confidence: Float[Array, "*tokens"] = _ABSENT
    correct: Float[Array, "*tokens"] = _ABSENT
    entropy: Float[Array, "*tokens"] = _ABSENT
    sum_squares: Float[Array, "*tokens"] = _ABSENT
    mean_log_prob: Float[Array, "*tokens"] = _ABSENT
    rank: Int[Array, "*tokens"] = _ABSENT
    runner_up: Float[Array, "*tokens"] = _ABSENT
    extra: dict[str, Float[Array, "*tokens"]] = dataclasses.field(default_factory=dict)

    @property
    def confidence(self) -> Float[Array, "*tokens"]:
        """The largest probability."""
        assert self.log_confidence is not None, "log_confidence was not asked for"
        return jnp.exp(self.log_confidence)


FIELDS = tuple(field.name for field in dataclasses.fields(TokenStats) if field.name != "extra")
"""Every field that `readout` can compute."""


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
        chunk: tokens multiplied at once; default: as many as keep `CHUNK_ELEMENTS` logits.
        fields: the statistics wanted; the others are None and cost nothing.
        functionals: further per-token functionals of the logits, run inside the same pass.

    Returns:
        Statistics of the tokens' leading shape.

    Raises:
        ValueError: for an unknown field or shapes that do not fit.
    """
    unknown = set(fields) - set(FIELDS)
    if unknown:
        raise ValueError(f"fields: {sorted(unknown)} unknown; allowed: {', '.join(FIELDS)}")
    width, padded_vocab = unembedding.shape
    shape = hidden.shape[:-1]
    if hidden.shape[-1] != width or labels.shape != shape:
        raise ValueError(
            f"hidden {hidden.shape}, unembedding {unembedding.shape} and labels {labels.shape} "
            "do not fit: wanted [*tokens, width], [width, vocab], [*tokens]"
        )
    vocab_size = padded_vocab if vocab_size is None else vocab_size
    if not 0 < vocab_size <= padded_vocab:
        raise ValueError(f"vocab_size {vocab_size} must be in 1..{padded_vocab}")

    tokens = labels.size
    if chunk is None:
        chunk = max(1, CHUNK_ELEMENTS // padded_vocab)
    chunk = max(1, min(chunk, tokens))
    chunks = -(-tokens // chunk)

    def split(array: Array) -> Array:
        flat = array.reshape(tokens, *array.shape[len(shape) :])
        padding = [(0, chunks * chunk - tokens)] + [(0, 0)] * (flat.ndim - 1)
        return jnp.pad(flat, padding).reshape(chunks, chunk, *flat.shape[1:])

    inputs: tuple[Array, ...] = (split(hidden), split(labels))
    if temperature is not None:
        inverse = 1.0 / jnp.asarray(temperature, jnp.float32)
        inputs = (*inputs, split(jnp.broadcast_to(inverse, shape)))

    @jax.checkpoint  # the backward pass computes a chunk's logits again instead of keeping them
    def reduce_chunk(unembedding: Array, chunk_inputs: tuple[Array, ...]) -> TokenStats:
        hidden, labels, *inverse = chunk_inputs
        logits = jnp.matmul(hidden, unembedding, preferred_element_type=jnp.float32)
        if soft_cap is not None:
            logits = soft_cap * jnp.tanh(logits / soft_cap)
        if inverse:
            logits = logits * inverse[0][:, None]
        return statistics(logits, labels, vocab_size, fields, functionals)

    if chunks == 1:
        stats = reduce_chunk(unembedding, tuple(array[0] for array in inputs))
    else:
        _, stats = jax.lax.scan(
            lambda carry, chunk_inputs: (carry, reduce_chunk(unembedding, chunk_inputs)),
            None,
            inputs,
        )
    return jax.tree.map(lambda array: array.reshape(-1)[:tokens].reshape(shape), stats)


def statistics(
    logits: Float[Array, "tokens vocab"],
    labels: Int[Array, " tokens"],
    vocab_size: int | None = None,
    fields: Sequence[str] = FIELDS,
    functionals: Mapping[str, Functional] | None = None,
) -> TokenStats:
    """`TokenStats` of logits that are at hand: the formulas behind `readout`, for one chunk."""
    vocab_size = logits.shape[-1] if vocab_size is None else vocab_size
    column = jnp.arange(logits.shape[-1])
    is_real: Bool[Array, " vocab"] = column < vocab_size
    if vocab_size != logits.shape[-1]:
        logits = jnp.where(is_real, logits, _MASKED)
    # One-hot comparison rather than a gather: its gradient is a select, not a scatter, and it
    # partitions over a sharded vocabulary.
    is_label: Bool[Array, "tokens vocab"] = column == labels[:, None]
    top = jnp.max(logits, axis=-1)
    shift = jax.lax.stop_gradient(top)
    shifted = logits - shift[:, None]
    log_normalizer = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    label_logit = jnp.sum(jnp.where(is_label, shifted, 0.0), axis=-1)
    found: dict[str, Any] = {}
    if "nll" in fields:
        found["nll"] = log_normalizer - label_logit
    if "log_confidence" in fields:
        # never above 0, even where rounding makes the logits of two passes differ
        found["log_confidence"] = jnp.minimum((top - shift) - log_normalizer, 0.0)
    if "correct" in fields:
        first = jnp.min(jnp.where(logits == top[:, None], column, logits.shape[-1]), axis=-1)
        found["correct"] = (first == labels).astype(jnp.float32)
    if "entropy" in fields or "sum_squares" in fields:
        probability = jnp.exp(shifted - log_normalizer[:, None])
        if "entropy" in fields:
            found["entropy"] = log_normalizer - jnp.sum(probability * shifted, axis=-1)
        if "sum_squares" in fields:
            found["sum_squares"] = jnp.sum(jnp.square(probability), axis=-1)
    if "mean_log_prob" in fields:
        total = jnp.sum(jnp.where(is_real, shifted, 0.0), axis=-1)
        found["mean_log_prob"] = total / vocab_size - log_normalizer
    if "rank" in fields:
        found["rank"] = jnp.sum(shifted > label_logit[:, None], axis=-1, dtype=jnp.int32)
    if "runner_up" in fields:
        below = jnp.where((shifted < label_logit[:, None]) & is_real, shifted, _MASKED)
        found["runner_up"] = jnp.exp(jnp.max(below, axis=-1) - log_normalizer)
    extra = {name: function(logits, labels) for name, function in (functionals or {}).items()}
    return TokenStats(**found, extra=extra)
