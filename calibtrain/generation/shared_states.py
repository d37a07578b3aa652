"""Decoding states of a transformer whose hypotheses share the tokens of their text.

A text has a pool of places on the device, one for each token that some state of it holds. A state
is what the host knows of it: which places it consists of. So a new state costs one place, and none
is copied. The interface is that of `states.DecodingStates`, which keeps states of any network as
rows.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from calibtrain.models import Network, Params
from calibtrain.models.shared_decoding import (
    NewTokens,
    SharedCache,
    empty_shared_cache,
    read_shared,
)
from calibtrain.readout import probabilities

CHUNK = 32
"""Tokens of a text's beginning that are read at once."""
SPARE = 32
"""Places beyond a context that a pool begins with; it grows where they are not enough."""


class SharedStates:
    """The states of some lanes, `slots` rows each; lane i has pool i modulo `pools`."""

    def __init__(
        self,
        network: Network,
        params: Params,
        *,
        rows: int,
        slots: int,
        pools: int,
        context: int,
        events: Int[np.ndarray, " events"],
        most: int | None = None,
    ):
        """Args:
        network: the model, of which `can_share` holds.
        params: its parameters.
        rows: number of states.
        slots: states of a lane.
        pools: number of texts; lanes of the same pool can go on from each other.
        context: how many of its last tokens a state sees.
        events: as for `DecodingStates`.
        most: states of a lane that are extended at once; default: all of its slots.
        """
        self._network, self._params, self._context = network, params, context
        self._columns = jnp.asarray(network.unembedding(params)[:, events])
        self._pools, self._slots = pools, slots
        self._pool = np.arange(rows) // slots % pools
        numbers = rows // slots // pools * (most or slots)  # tokens of a pool read at once, at most
        self._shapes = _shapes(pools, numbers)
        places = -(-(context + SPARE) // 16) * 16
        self._cache = empty_shared_cache(network, params, pools, places)
        self._holds = np.zeros((rows, places), bool)  # the places that a state consists of
        self._length = np.zeros(rows, np.int64)  # how many tokens it has read
        self._position = np.zeros((pools, places), np.int64)  # that of the token in a place
        self._read = _program(network)

    def start(
        self, prefixes: Sequence[Int[np.ndarray, " tokens"]], rows: Int[np.ndarray, " texts"]
    ) -> Float[np.ndarray, "texts events"]:
        """Reads prefixes into rows; all other states are dropped (see `DecodingStates.start`)."""
        counts = np.array([len(prefix) for prefix in prefixes], np.int64)
        self._holds[:] = False
        self._grow(int(counts.max()))
        texts, longest = len(prefixes), int(counts.max())
        tokens = np.zeros((texts, longest), np.int64)
        for row, prefix in enumerate(prefixes):
            tokens[row, : len(prefix)] = prefix
        self._position[:, :longest] = np.arange(longest)  # token t lies in place t
        found = np.zeros((texts, self._columns.shape[1]), np.float32)
        for first in range(0, longest, CHUNK):
            text, at = np.nonzero(np.arange(first, min(first + CHUNK, longest)) < counts[:, None])
            at += first
            pool, places = self._pool[rows[text]], np.arange(self._holds.shape[1])
            seen = (places <= at[:, None]) & (places > at[:, None] - self._context)
            ends = np.flatnonzero(at == counts[text] - 1)
            asked = np.zeros(self._pools, np.int64)
            asked[: len(ends)] = ends
            read = self._probabilities(
                tokens[text, at],
                pool,
                at,
                at,
                at - first,
                seen,
                asked,
                size=self._pools * CHUNK,
                numbers=CHUNK,
            )
            found[text[ends]] = read[: len(ends)]
        self._holds[rows] = np.arange(self._holds.shape[1]) < counts[:, None]
        self._length[rows] = counts
        return found

    def extend(
        self,
        sources: Int[np.ndarray, " new"],
        targets: Int[np.ndarray, " new"],
        tokens: Int[np.ndarray, " new"],
    ) -> Float[np.ndarray, "new events"]:
        """Reads one more token each (see `DecodingStates.extend`)."""
        pool = self._pool[targets]
        number = _numbers(pool)
        free = self._free(int(number.max()) + 1)
        place = (np.cumsum(free, axis=1)[pool] <= number[:, None]).sum(axis=1)
        position = self._length[sources]
        seen = self._holds[sources]
        seen &= self._position[pool] > (position - self._context)[:, None]
        seen[np.arange(len(pool)), place] = True
        self._position[pool, place] = position
        size, numbers = next(
            (size, numbers)
            for size, numbers in self._shapes
            if size >= len(pool) and numbers > number.max()
        )
        asked = np.zeros(size, np.int64)
        asked[: len(pool)] = np.arange(len(pool))
        found = self._probabilities(
            tokens,
            pool,
            place,
            position,
            number,
            seen,
            asked,
            size=size,
            numbers=numbers,
        )
        self._holds[targets], self._length[targets] = seen, position + 1
        return found[: len(pool)]

    def copy(
        self, sources: Int[np.ndarray, " copies"], targets: Int[np.ndarray, " copies"]
    ) -> None:
        """Makes states of some rows those of others, of the same pool, too."""
        self._holds[targets], self._length[targets] = self._holds[sources], self._length[sources]

    def keep(self, rows: Int[np.ndarray, " kept"]) -> None:
        """Drops the states of all other rows, which frees their places."""
        dropped = np.ones(len(self._holds), bool)
        dropped[rows] = False
        self._holds[dropped] = False

    def _free(self, wanted: int) -> Bool[np.ndarray, "pools places"]:
        """The places of each pool that no state holds, at least so many."""
        while True:
            places = self._holds.shape[1]
            words = self._holds.view(np.uint64)  # eight places at a time
            by_pool = words.reshape(-1, self._pools, self._slots, words.shape[1])
            held = np.bitwise_or.reduce(np.bitwise_or.reduce(by_pool, axis=2), axis=0)
            free = np.logical_not(held.view(bool))
            if free.sum(axis=1).min() >= wanted:
                return free
            self._grow(places + max(wanted, SPARE))

    def _grow(self, places: int) -> None:
        """Gives every pool at least so many places."""
        more = -(-places // 16) * 16 - self._holds.shape[1]
        if more <= 0:
            return
        self._holds = np.pad(self._holds, ((0, 0), (0, more)))
        self._position = np.pad(self._position, ((0, 0), (0, more)))
        beside: Any = ((0, 0), (0, 0), (0, 0), (0, more))
        below: Any = ((0, 0), (0, 0), (0, more), (0, 0))
        self._cache = SharedCache(
            tuple(jnp.pad(keys, beside) for keys in self._cache.keys),
            tuple(jnp.pad(values, below) for values in self._cache.values),
        )

    def _probabilities(
        self,
        tokens: Int[np.ndarray, " new"],
        pool: Int[np.ndarray, " new"],
        place: Int[np.ndarray, " new"],
        position: Int[np.ndarray, " new"],
        number: Int[np.ndarray, " new"],
        seen: Bool[np.ndarray, "new places"],
        asked: Int[np.ndarray, " asked"],
        size: int,
        numbers: int,
    ) -> Float[np.ndarray, "asked events"]:
        """Reads tokens (`NewTokens`) and returns the probabilities after those that are asked."""
        columns = np.zeros((5, size), np.int32)
        columns[1] = self._pools  # past the last pool: dropped
        columns[:, : len(tokens)] = tokens, pool, place, position, number
        by_pool = np.zeros((self._pools, numbers, seen.shape[1]), bool)
        by_pool[pool, number] = seen
        parts: Any = (*columns, by_pool)
        new = NewTokens(*parts)
        found, self._cache = self._read(
            self._params, self._columns, self._cache, new, np.asarray(asked, np.int32)
        )
        return np.asarray(found)


@functools.lru_cache(maxsize=16)
def _program(network: Network) -> Any:
    """Returns the compiled program that reads tokens; states of one network share it."""
    soft_cap = network.config.logit_soft_cap

    def read(
        params: Params, columns: Array, cache: SharedCache, new: NewTokens, asked: Array
    ) -> tuple[Array, SharedCache]:
        hidden, temperature, cache = read_shared(network, params, cache, new)
        chosen = None if temperature is None else temperature[asked]
        found = probabilities(hidden[asked], columns, temperature=chosen, soft_cap=soft_cap)
        return found, cache

    return jax.jit(read, donate_argnums=2)


def _shapes(pools: int, most: int) -> list[tuple[int, int]]:
    """Returns how many tokens are read at once, in all and of each pool; the smallest first.

    Few, as each is a program of its own. A text that is followed by a beam reads little more than
    one token per byte, and seldom more than half of what it might.
    """
    together, half = pools * most, -(-most // 2)
    sizes = [(-(-5 * pools // 4), half), (-(-together // 3), half), (together, most)]
    return sorted({(min(size, pools * numbers), numbers) for size, numbers in sizes})


def _numbers(groups: Int[np.ndarray, " members"]) -> Int[np.ndarray, " members"]:
    """Numbers the members of each group: 0, 1, ..."""
    order = np.argsort(groups, kind="stable")
    _, first, counts = np.unique(groups[order], return_index=True, return_counts=True)
    found = np.empty(len(groups), np.int64)
    found[order] = np.arange(len(groups)) - np.repeat(first, counts)
    return found
