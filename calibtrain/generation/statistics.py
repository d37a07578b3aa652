"""What a trace says of a token, read off the logits that it was predicted with."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from calibtrain.readout import largest
from calibtrain.runs.traces import ALTERNATIVES


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


def entropy_of(log_probabilities: Float[Array, "*rows vocab"]) -> Float[Array, "*rows"]:
    """Returns the entropy of distributions, in nats; entries of probability 0 add nothing."""
    p = jnp.exp(log_probabilities)
    return -jnp.sum(jnp.where(p > 0, p * log_probabilities, 0.0), axis=-1)
