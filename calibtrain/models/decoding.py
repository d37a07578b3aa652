"""Decoding: a network reads a token at a time, and keeps a cache of those it has read."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.models import TEMPERATURE, Network, Params
from calibtrain.models.lstm import RecurrentState
from calibtrain.models.transformer import KeyValueCache

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TemperedCache:
    """What a network with a temperature head keeps.

    Attributes:
        body: what the network keeps without one.
        head: what the head keeps; None for one that looks at a token alone.
    """

    body: KeyValueCache | RecurrentState
    head: Any


Cache = KeyValueCache | RecurrentState | TemperedCache
"""What decoding keeps, one row per sequence; `jax.tree.map(lambda x: x[index], cache)` reorders
them."""


def empty_cache(network: Network, params: Params, rows: int, length: int) -> Cache:
    """Returns the cache of sequences of which nothing is read yet.

    Args:
        network: the model.
        params: its parameters.
        rows: number of sequences.
        length: how many of its last tokens a sequence sees (a transformer's context).
    """
    module = network.module(params)
    body = module.empty_cache(rows, length)
    if network.head is None:
        return body
    dtype = module.vocabulary.dtype
    return TemperedCache(body, network.head.empty_cache(params[TEMPERATURE], rows, length, dtype))


def decode(
    network: Network,
    params: Params,
    cache: Cache,
    tokens: Int[Array, " rows"],
    active: Bool[Array, " rows"] | None = None,
) -> tuple[Float[Array, "rows width"], Float[Array, " rows"] | None, Cache]:
    """Reads one more token of each sequence.

    As long as a sequence fits into the cache, hidden states are those of `Network.apply` on the
    whole sequence, up to rounding. The oldest tokens of a longer one are forgotten.

    Args:
        network: the model.
        params: its parameters.
        cache: of the tokens before.
        tokens: the next token of each row.
        active: rows that read theirs, by default all; the others' cache stays as it is and their
            hidden state means nothing.

    Returns:
        The hidden state and the temperature (None without a head) of each token, and the cache
        with it.
    """
    active = jnp.ones(tokens.shape, bool) if active is None else active
    module: Any = network.module(params)
    if network.head is None:
        hidden, cache = module.decode(cache, tokens, active)
        return hidden, None, cache
    assert isinstance(cache, TemperedCache)
    hidden, body = module.decode(cache.body, tokens, active)
    hidden, temperature, head = network.head.decode(params[TEMPERATURE], cache.head, hidden, active)
    return hidden, temperature, TemperedCache(body, head)


def truncated(cache: Cache, rows: Int[Array, " some"], counts: Int[Array, " some"]) -> Cache:
    """Returns the cache with rows of which only so many first tokens are read.

    No row may have forgotten a token.

    Raises:
        ValueError: for a cache that sums up its tokens, which cannot be taken back.
    """
    body = cache.body if isinstance(cache, TemperedCache) else cache
    sums = isinstance(cache, TemperedCache) and cache.head is not None
    if sums or not isinstance(body, KeyValueCache):
        raise ValueError("only the cache of a transformer can be cut, and not with a head's state")
    # keys and values beyond the position are not seen, and are overwritten
    shorter = dataclasses.replace(body, position=body.position.at[rows].set(counts))
    return TemperedCache(shorter, None) if isinstance(cache, TemperedCache) else shorter


def read(
    network: Network,
    params: Params,
    tokens: Int[Array, "rows time"],
    counts: Int[Array, " rows"],
    length: int,
) -> tuple[Float[Array, "rows time width"], Float[Array, "rows time"] | None, Cache]:
    """Reads the first tokens of sequences, all of a sequence in one pass.

    Args:
        network: the model.
        params: its parameters.
        tokens: of each row; what lies beyond its count is not read. At most `length`.
        counts: how many tokens a row has. One that has none gets the cache of an empty sequence.
        length: as for `empty_cache`.

    Returns:
        The hidden state and the temperature (None without a head) of each token, which mean
        nothing beyond a row's count, and the cache.
    """
    module: Any = network.module(params)
    hidden, cache = module.prefill(tokens, counts, length)
    if network.head is None:
        return hidden, None, cache
    hidden, temperature, own = network.head.prefill(params[TEMPERATURE], hidden, counts, length)
    return hidden, temperature, TemperedCache(cache, own)


def prefill(
    network: Network,
    params: Params,
    tokens: Int[Array, "rows time"],
    counts: Int[Array, " rows"],
    length: int,
) -> tuple[Float[Array, "rows width"], Float[Array, " rows"] | None, Cache]:
    """Reads the first tokens of sequences as `read` does; returns what follows the last of each.

    Args:
        network: the model.
        params: its parameters.
        tokens: of each row; what lies beyond its count, or beyond `length`, only pads it.
        counts: how many tokens a row has, at most `length`.
        length: as for `empty_cache`.

    Returns:
        The hidden state and the temperature (None without a head) of each row's last token, which
        mean nothing for a row that has none, and the cache.
    """
    hidden, temperature, cache = read(network, params, tokens[:, :length], counts, length)

    def last(x: Array) -> Array:
        return jnp.take_along_axis(x, _column(jnp.maximum(counts - 1, 0), x.ndim), axis=1)[:, 0]

    return last(hidden), None if temperature is None else last(temperature), cache


def _column(x: Array, axes: int) -> Array:
    return x.reshape(-1, *[1] * (axes - 1))
