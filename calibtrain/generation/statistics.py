"""What a trace says of a token, read off the logits that it was predicted with."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

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
    values, places = jax.lax.top_k(x, min(ALTERNATIVES, x.shape[-1]))
    p = jnp.exp(x)
    return TokenStatistics(
        log_probability=own[:, 0],
        entropy=-jnp.sum(jnp.where(p > 0, p * x, 0.0), axis=-1),
        confidence=jnp.exp(values[:, 0]),
        rank=1 + jnp.sum(x > own, axis=-1, dtype=jnp.int32),
        alternatives=places,
        alternative_log_probability=values,
    )


def log_probabilities(
    hidden: Float[Array, "tokens width"],
    columns: Float[Array, "width vocab"],
    temperature: Float[Array, " tokens"] | None,
    soft_cap: float | None,
) -> Float[Array, "tokens vocab"]:
    """Returns the next-token log-probabilities after some hidden states, in float32."""
    logits = jnp.matmul(hidden, columns, preferred_element_type=jnp.float32)
    if soft_cap is not None:
        logits = soft_cap * jnp.tanh(logits / soft_cap)
    if temperature is not None:
        logits = logits / temperature[:, None]
    return jax.nn.log_softmax(logits, axis=-1)
