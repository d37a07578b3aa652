"""What a trace says of a token, read off the logits that it was predicted with."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from calibtrain.readout import largest, log_probabilities
from calibtrain.runs.traces import ALTERNATIVES

_CHUNK = 64  # tokens whose logits are held at once


class TokenStatistics(NamedTuple):
    """Statistics of tokens under a model, before samplers; in nats.

    Attributes:
        log_probability: of the token.
        entropy: of the distribution.
        confidence: its largest probability.
        rank: 1 + the number of entries that are more probable than the token.
        alternatives: the most probable entries, the best first.
        alternative_log_probability: of each of them.
    """

    log_probability: Float[Any, " tokens"]
    entropy: Float[Any, " tokens"]
    confidence: Float[Any, " tokens"]
    rank: Int[Any, " tokens"]
    alternatives: Int[Any, "tokens few"]
    alternative_log_probability: Float[Any, "tokens few"]


def token_statistics(
    log_probabilities: Float[Array, "tokens vocab"], tokens: Int[Array, " tokens"]
) -> TokenStatistics:
    """Returns the statistics of tokens under normalised log-probabilities.

    Nothing is sorted: the rank is a count.
    """
    x = log_probabilities
    own = jnp.take_along_axis(x, tokens[:, None], axis=-1)
    # the token itself is left out by its column: two passes may round its value differently
    above = (x > own) & (jnp.arange(x.shape[-1]) != tokens[:, None])
    values, places = largest(x, min(ALTERNATIVES, x.shape[-1]))
    return TokenStatistics(
        log_probability=own[:, 0],
        entropy=entropy_of(x),
        confidence=jnp.exp(values[:, 0]),
        rank=1 + jnp.sum(above, axis=-1, dtype=jnp.int32),
        alternatives=places,
        alternative_log_probability=values,
    )


def statistics_of_states(
    hidden: Float[Array, "rows time width"],
    columns: Float[Array, "width vocab"],
    temperature: Float[Array, "rows time"] | None,
    labels: Int[Array, "rows time"],
    *,
    soft_cap: float | None,
) -> tuple[TokenStatistics, Float[Array, "rows time"]]:
    """Returns the statistics of labels under what hidden states predict, and the temperature.

    The logits of a few tokens are held at once.

    Args:
        hidden: final hidden states.
        columns: the unembedding.
        temperature: of a head; None means 1.
        labels: the token that follows each.
        soft_cap: of the logits (`Network.config`).
    """
    heat = jnp.ones(labels.shape, jnp.float32) if temperature is None else temperature
    inputs = (hidden.reshape(-1, hidden.shape[-1]), heat.reshape(-1), labels.reshape(-1))
    chunk = min(_CHUNK, labels.size)
    more = -labels.size % chunk
    inputs = jax.tree.map(
        lambda x: jnp.pad(x, ((0, more), *[(0, 0)] * (x.ndim - 1)), mode="edge").reshape(
            -1, chunk, *x.shape[1:]
        ),
        inputs,
    )

    def one(some: tuple[Array, Array, Array]) -> TokenStatistics:
        hidden, heat, labels = some
        own = None if temperature is None else heat
        return token_statistics(
            log_probabilities(hidden, columns, temperature=own, soft_cap=soft_cap), labels
        )

    def whole(x: Array) -> Array:
        flat = x.reshape(-1, *x.shape[2:])[: labels.size]
        return flat.reshape(*labels.shape, *x.shape[2:])

    return jax.tree.map(whole, jax.lax.map(one, inputs)), heat


def entropy_of(log_probabilities: Float[Array, "*rows vocab"]) -> Float[Array, "*rows"]:
    """Returns the entropy of distributions, in nats; entries of probability 0 add nothing."""
    p = jnp.exp(log_probabilities)
    return -jnp.sum(jnp.where(p > 0, p * log_probabilities, 0.0), axis=-1)
