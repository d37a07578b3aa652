"""Decoding many continuations of a few texts: keys and values are kept once a text.

`decoding` keeps a cache for each sequence, and a sequence that branches takes a copy along. Here
the sequences of one text share a pool of tokens, and each says by a mask which of them lie before
it, so that a branch costs no copy. What is computed is the same.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.models import TEMPERATURE, Network, Params
from calibtrain.models.attention.cpu import HIDDEN
from calibtrain.models.layers import rotary_angles_at

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SharedCache:
    """The tokens of some texts, in places of a pool each.

    Attributes:
        keys: one array per layer, rotated.
        values: likewise.
    """

    keys: tuple[Float[Array, "pools kv_heads size places"], ...]
    values: tuple[Float[Array, "pools kv_heads places size"], ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NewTokens:
    """Tokens that are read at once.

    Attributes:
        token: which vocabulary entry.
        pool: of its text; a number past the last for what is padding.
        place: where it is put in the pool.
        position: how many tokens of its sequence come before it.
        number: tells it from the others of its pool that are read now: 0, 1, ...
        seen: which places of the pool each of them sees, by `number`; itself is one.
    """

    token: Int[Array, " new"]
    pool: Int[Array, " new"]
    place: Int[Array, " new"]
    position: Int[Array, " new"]
    number: Int[Array, " new"]
    seen: Bool[Array, "pools numbers places"]


def can_share(network: Network, params: Params) -> bool:
    """Whether a network's state is its keys and values alone: a transformer's, with no head's."""
    if network.config.kind != "transformer":
        return False
    head = network.head
    return head is None or head.empty_cache(params[TEMPERATURE], 1, 1, jnp.float32) is None


def empty_shared_cache(network: Network, params: Params, pools: int, places: int) -> SharedCache:
    """Returns the cache of texts of which nothing is read yet."""
    module = network.module(params)

    def buffers(*shape: int) -> tuple[Array, ...]:
        return tuple(
            jnp.zeros((pools, block.attention.kv_heads, *shape), module.vocabulary.dtype)
            for block in module.blocks
        )

    size = network.config.size_of_head
    return SharedCache(buffers(size, places), buffers(places, size))


def read_shared(
    network: Network, params: Params, cache: SharedCache, new: NewTokens
) -> tuple[Float[Array, "new width"], Float[Array, " new"] | None, SharedCache]:
    """Reads tokens, each after those that it sees, which may be read at the same time.

    Returns:
        The hidden state and the temperature (None without a head) of each token, as
        `decoding.decode`, and the cache with the tokens.
    """
    module: Any = network.module(params)
    x = module.vocabulary.embed(new.token)
    angles = rotary_angles_at(new.position, module._frequencies())
    all_keys, all_values = [], []
    for block, keys, values in zip(module.blocks, cache.keys, cache.values, strict=True):
        attention = block.attention
        (query,), (key,), (value,) = attention.project(block.attention_norm(x)[None], angles)
        keys = keys.at[new.pool, :, :, new.place].set(key, mode="drop")
        values = values.at[new.pool, :, new.place].set(value, mode="drop")
        seen = attend_to_pools(query, keys, values, new)
        x = x + attention.out(seen.reshape(len(x), -1))
        x = x + block.mlp(block.mlp_norm(x))
        all_keys.append(keys)
        all_values.append(values)
    hidden, cache = module.final_norm(x), SharedCache(tuple(all_keys), tuple(all_values))
    if network.head is None:
        return hidden, None, cache
    active = jnp.ones(new.token.shape, bool)
    hidden, temperature, _ = network.head.decode(params[TEMPERATURE], None, hidden, active)
    return hidden, temperature, cache


def attend_to_pools(
    query: Float[Array, "new heads size"],
    keys: Float[Array, "pools kv_heads size places"],
    values: Float[Array, "pools kv_heads places size"],
    new: NewTokens,
) -> Float[Array, "new heads size"]:
    """Attention of each token to the places of its pool that it sees (`attention.attend`)."""
    _, heads, size = query.shape
    pools, numbers, _ = new.seen.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    exact: Any = jnp.float32
    # side by side by pool, so that its keys are read where they lie
    q = jnp.zeros((pools, numbers, heads, size), query.dtype)
    q = q.at[new.pool, new.number].set(query * size**-0.5, mode="drop")
    q = q.reshape(pools, numbers, kv_heads, group, size).swapaxes(1, 2)
    scores = jnp.einsum("pkngd,pkdl->pkngl", q, keys, preferred_element_type=exact)
    scores = jnp.where(new.seen[:, None, :, None], scores, HIDDEN)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(values.dtype)
    found = jnp.einsum("pkngl,pkld->pkngd", weights, values, preferred_element_type=exact) / total
    found = found.swapaxes(1, 2).reshape(pools, numbers, heads, size)
    return found[new.pool, new.number].astype(query.dtype)
