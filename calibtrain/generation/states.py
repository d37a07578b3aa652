"""Model states of a byte beam: rows of a cache on the device, extended a token at a time."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.models import Network, Params
from calibtrain.models.decoding import Cache, decode, empty_cache, prefill
from calibtrain.readout import probabilities


class ByteStates:
    """A state for each of so many rows, and the next-token distribution behind it.

    Distributions are over the trie's tokens in its order. The model's other entries (document
    start, the unknown piece) stand for no bytes and are never targets: they are no events here, and
    what little mass they have is shared out among the others.
    """

    def __init__(
        self, network: Network, params: Params, trie: ByteTrie, *, rows: int, context: int
    ):
        """Args:
        network: the model.
        params: its parameters.
        trie: of its vocabulary.
        rows: number of states.
        context: how many of its last tokens a state sees.
        """
        self._params = params
        self._columns = jnp.asarray(network.unembedding(params)[:, trie.order])
        self._cache = empty_cache(network, params, rows, context)
        self._rows = rows
        soft_cap = network.config.logit_soft_cap

        def read(hidden: Array, columns: Array, temperature: Array | None) -> Array:
            return probabilities(hidden, columns, temperature=temperature, soft_cap=soft_cap)

        def start(
            params: Params, columns: Array, tokens: Array, counts: Array
        ) -> tuple[Array, Cache]:
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

        self._start = jax.jit(start)
        self._extend = jax.jit(extend, donate_argnums=2)
        self._put = jax.jit(_put, donate_argnums=0)
        self._copy = jax.jit(_copy, donate_argnums=0)

    def start(
        self, prefixes: Sequence[Int[np.ndarray, " tokens"]], targets: Int[np.ndarray, " texts"]
    ) -> Float[np.ndarray, "texts tokens"]:
        """Read the first tokens of texts into some rows; distributions after them."""
        longest = max(map(len, prefixes))
        tokens = np.zeros((len(prefixes), 1 << (longest - 1).bit_length()), np.int32)
        for row, prefix in enumerate(prefixes):
            tokens[row, : len(prefix)] = prefix
        counts = np.array([len(prefix) for prefix in prefixes], np.int32)
        found, cache = self._start(self._params, self._columns, tokens, counts)
        self._cache = self._put(self._cache, cache, np.asarray(targets, np.int32))
        return np.asarray(found)

    def extend(
        self,
        sources: Int[np.ndarray, " new"],
        targets: Int[np.ndarray, " new"],
        tokens: Int[np.ndarray, " new"],
    ) -> Float[np.ndarray, "new tokens"]:
        """Read one token after the states in `sources` into `targets`; distributions after it."""
        new = self._padded(sources, targets, tokens)
        found, self._cache = self._extend(self._params, self._columns, self._cache, new)
        return np.asarray(found)[: len(tokens)]

    def copy(
        self, sources: Int[np.ndarray, " copies"], targets: Int[np.ndarray, " copies"]
    ) -> None:
        """Put the states of some rows into others too."""
        self._cache = self._copy(self._cache, self._padded(sources, targets))

    def _padded(self, *columns: Int[np.ndarray, " rows"]) -> Int[np.ndarray, "columns size"]:
        """Sources, targets and more, of a size that is compiled: what is added goes nowhere."""
        count = len(columns[0])
        size = next(size for size in self._sizes if size >= count)
        padded = np.zeros((len(columns), size), np.int32)
        padded[1] = self._rows  # nowhere
        padded[:, :count] = columns
        return padded

    @functools.cached_property
    def _sizes(self) -> list[int]:
        """How many are extended at once: few sizes, as each is a program of its own."""
        sizes = [self._rows]
        while sizes[-1] > 16:
            sizes.append(-(-sizes[-1] // 2))
        return sizes[::-1]


def _put(cache: Cache, rows: Cache, targets: Int[Array, " rows"]) -> Cache:
    return jax.tree.map(lambda all, some: all.at[targets].set(some, mode="drop"), cache, rows)


def _copy(cache: Cache, rows: Int[Array, "2 copies"]) -> Cache:
    sources, targets = rows
    return _put(cache, jax.tree.map(lambda x: x[sources], cache), targets)
