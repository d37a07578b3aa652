"""Look-ahead: the entropy of the step after each candidate (Braverman et al., Algorithm 2).

Every candidate is read, so that a step costs as many passes as there are candidates. What estimates
the same from the hidden state alone can take the place of `entropies_after`.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from calibtrain.generation.statistics import entropy_of
from calibtrain.models import Network, Params
from calibtrain.models.decoding import Cache, decode
from calibtrain.readout import log_probabilities


def entropies_after(
    network: Network,
    params: Params,
    columns: Float[Array, "width vocab"],
    cache: Cache,
    scores: Float[Array, "rows vocab"],
    drawable: Bool[Array, " vocab"],
    top: int,
) -> Float[Array, "rows vocab"]:
    """Returns H(next step | text, w) in nats of the most probable tokens w; infinity elsewhere.

    Args:
        network: the model.
        params: its parameters.
        columns: its unembedding.
        cache: of the texts.
        scores: log-probabilities of the next token of each text.
        drawable: the entries that can be drawn; others are no candidates.
        top: candidates of each text.
    """
    scores = jnp.where(drawable, scores, -jnp.inf)
    _, candidates = jax.lax.top_k(scores, min(top, scores.shape[-1]))
    soft_cap = network.config.logit_soft_cap

    def one(row: tuple[Cache, Array]) -> Array:
        own, tokens = row
        repeated = jax.tree.map(lambda x: jnp.repeat(x[None], len(tokens), axis=0), own)
        hidden, temperature, _ = decode(network, params, repeated, tokens)
        return entropy_of(
            log_probabilities(hidden, columns, temperature=temperature, soft_cap=soft_cap)
        )

    entropies = jax.lax.map(one, (cache, candidates))
    rows = jnp.arange(scores.shape[0])[:, None]
    looked = jnp.full(scores.shape, jnp.inf).at[rows, candidates].set(entropies)
    return jnp.where(drawable, looked, jnp.inf)
