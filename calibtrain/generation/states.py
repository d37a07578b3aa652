"""Decoding states of a network: sequences of tokens, kept as rows of a cache on the device.

`start` reads the first tokens of sequences, `extend` one more token each, `copy` duplicates rows.
Callers only see rows and next-token probabilities.
"""

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from calibtrain.models import Network, Params
from calibtrain.models.decoding import Cache, decode, empty_cache, prefill, truncated
from calibtrain.readout import probabilities


class TokenStates(Protocol):
    """Decoding states by row, with probabilities in the trie's order (see `DecodingStates`)."""

    def start(
        self, prefixes: Sequence[Int[np.ndarray, " tokens"]], rows: Int[np.ndarray, " texts"], /
    ) -> Float[np.ndarray, "texts tokens"]:
        """Reads prefixes into rows; the next-token probabilities after each."""

    def extend(
        self,
        sources: Int[np.ndarray, " new"],
        targets: Int[np.ndarray, " new"],
        tokens: Int[np.ndarray, " new"],
        /,
    ) -> Float[np.ndarray, "new tokens"]:
        """Reads one more token each; the next-token probabilities after it."""

    def copy(
        self, sources: Int[np.ndarray, " copies"], targets: Int[np.ndarray, " copies"], /
    ) -> None:
        """Copies the states of some rows into others."""

    def keep(self, rows: Int[np.ndarray, " kept"], /) -> None:
        """Says that the states of all other rows are not needed any more."""


class DecodingStates:
    """The state of each of a fixed number of rows, and the next-token probabilities after it."""

    def __init__(
        self,
        network: Network,
        params: Params,
        *,
        rows: int,
        context: int,
        events: Int[np.ndarray, " events"] | None = None,
    ):
        """Args:
        network: the model.
        params: its parameters.
        rows: number of states.
        context: how many of its last tokens a state sees.
        events: the vocabulary entries that can come next, in the order in which their
            probabilities are returned. The others are left out of the softmax, so that their
            probability is shared out among these. Default: the whole vocabulary.
        """
        if events is None:
            events = np.arange(network.vocab_size)
        self._params = params
        self._columns = jnp.asarray(network.unembedding(params)[:, events])
        self._cache = empty_cache(network, params, rows, context)
        self._rows, self._context = rows, context
        programs = _programs(network, context)
        self._start, self._extend, self._put, self._copy = programs

    def start(
        self, prefixes: Sequence[Int[np.ndarray, " tokens"]], rows: Int[np.ndarray, " texts"]
    ) -> Float[np.ndarray, "texts events"]:
        """Reads prefixes into rows and returns the next-token probabilities after each.

        Args:
            prefixes: the first tokens of each text, at least one.
            rows: where the state of each is put.

        Raises:
            ValueError: for a prefix longer than the context.
        """
        longest = max(map(len, prefixes))
        if longest > self._context:
            raise ValueError(f"a prefix has {longest} tokens, and the context {self._context}")
        tokens = np.zeros((len(prefixes), 1 << (longest - 1).bit_length()), np.int32)
        for row, prefix in enumerate(prefixes):
            tokens[row, : len(prefix)] = prefix
        counts = np.array([len(prefix) for prefix in prefixes], np.int32)
        found, cache = self._start(self._params, self._columns, tokens, counts)
        self._cache = self._put(self._cache, cache, np.asarray(rows, np.int32))
        return np.asarray(found)

    def extend(
        self,
        sources: Int[np.ndarray, " new"],
        targets: Int[np.ndarray, " new"],
        tokens: Int[np.ndarray, " new"],
    ) -> Float[np.ndarray, "new events"]:
        """Reads one more token each and returns the next-token probabilities after it.

        Args:
            sources: rows of the states that the tokens are read after.
            targets: rows that the new states are put into; a target may be the source of another.
            tokens: the token that is read after each.
        """
        new = self._padded(sources, targets, tokens)
        found, self._cache = self._extend(self._params, self._columns, self._cache, new)
        return np.asarray(found)[: len(tokens)]

    def copy(
        self, sources: Int[np.ndarray, " copies"], targets: Int[np.ndarray, " copies"]
    ) -> None:
        """Copies the states of some rows into others."""
        self._cache = self._copy(self._cache, self._padded(sources, targets))

    def reorder(self, order: Int[np.ndarray, " rows"]) -> None:
        """Makes the state of row i that of row order[i]."""
        self._cache = self._copy(self._cache, np.asarray([order, np.arange(self._rows)], np.int32))

    def truncate(self, rows: Int[np.ndarray, " some"], counts: Int[np.ndarray, " some"]) -> None:
        """Makes rows forget all but their first tokens, of which the context still holds each.

        Raises:
            ValueError: where the network keeps more than one entry per token: an LSTM, or a head
                with a state of its own.
        """
        self._cache = truncated(self._cache, jnp.asarray(rows), jnp.asarray(counts, jnp.int32))

    def keep(self, rows: Int[np.ndarray, " kept"]) -> None:
        """Does nothing: the states of other rows are overwritten where their row is needed."""

    def _padded(self, *columns: Int[np.ndarray, " rows"]) -> Int[np.ndarray, "columns size"]:
        """Sources, targets and more, padded to a compiled size; the padding goes to no row."""
        count = len(columns[0])
        size = next(size for size in self._sizes if size >= count)
        padded = np.zeros((len(columns), size), np.int32)
        padded[1] = self._rows  # past the last row: dropped
        padded[:, :count] = columns
        return padded

    @functools.cached_property
    def _sizes(self) -> list[int]:
        """How many states are extended at once: few sizes, as each is a program of its own."""
        sizes = [self._rows]
        while sizes[-1] > 16:
            sizes.append(-(-sizes[-1] // 2))
        return sizes[::-1]


@functools.lru_cache(maxsize=16)
def _programs(network: Network, context: int) -> tuple[Any, Any, Any, Any]:
    """Returns the programs to start, extend, put and copy, which the states of a network share."""
    soft_cap = network.config.logit_soft_cap

    def read(hidden: Array, columns: Array, temperature: Array | None) -> Array:
        return probabilities(hidden, columns, temperature=temperature, soft_cap=soft_cap)

    def start(params: Params, columns: Array, tokens: Array, counts: Array) -> tuple[Array, Cache]:
        hidden, temperature, cache = prefill(network, params, tokens, counts, context)
        return read(hidden, columns, temperature), cache

    def extend(
        params: Params, columns: Array, cache: Cache, new: Int[Array, "3 new"]
    ) -> tuple[Array, Cache]:
        sources, targets, tokens = new
        # The barriers keep XLA from merging the copies into all that reads them: on the CPU
        # that would be four times as slow.
        keep = jax.lax.optimization_barrier
        taken = keep(jax.tree.map(lambda x: x[sources], cache))
        hidden, temperature, taken = keep(decode(network, params, taken, tokens))
        return read(hidden, columns, temperature), _put(cache, taken, targets)

    return (
        jax.jit(start),
        jax.jit(extend, donate_argnums=2),
        jax.jit(_put, donate_argnums=0),
        jax.jit(_copy, donate_argnums=0),
    )


def _put(cache: Cache, rows: Cache, targets: Int[Array, " rows"]) -> Cache:
    return jax.tree.map(lambda all, some: all.at[targets].set(some, mode="drop"), cache, rows)


def _copy(cache: Cache, rows: Int[Array, "2 copies"]) -> Cache:
    sources, targets = rows
    return _put(cache, jax.tree.map(lambda x: x[sources], cache), targets)
