"""Language models as pure functions: parameters in, hidden states and unembedding out.

A model is written as a Flax NNX module and used as a `Network`: its graph definition closed over,
its parameters a plain nested dict of float32 arrays, so that `jax.jit` sees flat leaves.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from calibtrain.config import ModelConfig
from calibtrain.models.lstm import LSTM, RecurrentState
from calibtrain.models.transformer import KeyValueCache, Transformer

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


Params = dict[str, Any]
Cache = KeyValueCache | RecurrentState
"""What decoding keeps, a row a sequence: `jax.tree.map(lambda x: x[index], cache)` reorders it."""
_KINDS = {"transformer": Transformer, "lstm": LSTM}


@dataclasses.dataclass(frozen=True)
class Network:
    """A model without its parameters.

    Attributes:
        config: the architecture.
        vocab_size: number of real vocabulary entries.
    """

    config: ModelConfig
    vocab_size: int
    _graph: Any = dataclasses.field(repr=False)

    def init(self, key: Array) -> Params:
        """Fresh float32 parameters."""
        module = _module(self.config, self.vocab_size, nnx.Rngs(key))
        return nnx.to_pure_dict(nnx.state(module, nnx.Param))

    def apply(
        self,
        params: Params,
        tokens: Int[Array, "batch time"],
        segments: Int[Array, "batch time"],
    ) -> tuple[Float[Array, "batch time width"], Float[Array, "width vocab"]]:
        """Hidden states and unembedding, ready for `readout`.

        Args:
            params: from `init`.
            tokens: input ids.
            segments: number of the document, within its row, that each token belongs to.
        """
        module = self._with(params)
        return module(tokens, segments), module.vocabulary.columns()

    def unembedding(self, params: Params) -> Float[Array, "width vocab"]:
        """The unembedding alone."""
        return self._with(params).vocabulary.columns()

    def empty_cache(self, params: Params, rows: int, length: int) -> Cache:
        """A cache of so many sequences of which nothing is read yet.

        Args:
            params: from `init`.
            rows: number of sequences.
            length: how many of its last tokens a sequence sees (a transformer's context).
        """
        return self._with(params).empty_cache(rows, length)

    def decode(
        self,
        params: Params,
        cache: Cache,
        tokens: Int[Array, " rows"],
        active: Bool[Array, " rows"] | None = None,
    ) -> tuple[Float[Array, "rows width"], Cache]:
        """Read one more token of each sequence.

        As long as a sequence fits into the cache, hidden states are those of `apply` on the whole
        sequence, to rounding. One that is longer has its oldest tokens forgotten.

        Args:
            params: from `init`.
            cache: of the tokens before.
            tokens: the next token of each row.
            active: rows that read theirs; the others' cache stays as it is and their hidden state
                means nothing. Default: all.

        Returns:
            The hidden state of each token, and the cache with it.
        """
        active = jnp.ones(tokens.shape, bool) if active is None else active
        return self._with(params).decode(cache, tokens, active)

    def prefill(
        self,
        params: Params,
        tokens: Int[Array, "rows time"],
        counts: Int[Array, " rows"],
        length: int,
    ) -> tuple[Float[Array, "rows width"], Cache]:
        """Read the first tokens of sequences, one after another.

        Args:
            params: from `init`.
            tokens: of each row; what lies beyond its count is not read.
            counts: how many tokens a row has, at least 1.
            length: as for `empty_cache`.

        Returns:
            The hidden state of each row's last token, and the cache.
        """

        def read(time: Array, carry: tuple[Array, Cache]) -> tuple[Array, Cache]:
            last, cache = carry
            active = time < counts
            hidden, cache = self.decode(params, cache, tokens[:, time], active)
            return jnp.where(active[:, None], hidden, last), cache

        start = jnp.zeros((len(tokens), self.config.width), compute_dtype(self.config))
        cache = self.empty_cache(params, len(tokens), length)
        return jax.lax.fori_loop(0, jnp.max(counts), read, (start, cache))

    def _with(self, params: Params) -> Any:
        return nnx.merge(self._graph, nnx.State(params))


def build(config: ModelConfig, vocab_size: int) -> Network:
    """The network of a configuration for a vocabulary."""
    module = nnx.eval_shape(lambda: _module(config, vocab_size, nnx.Rngs(0)))
    return Network(config, vocab_size, nnx.graphdef(module))


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """The type that layers compute in: bfloat16 on accelerators, float32 on the CPU."""
    if config.compute == "auto":
        return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)
    return jnp.dtype(config.compute)


def _module(config: ModelConfig, vocab_size: int, rngs: nnx.Rngs) -> Any:
    return _KINDS[config.kind](config, vocab_size, compute_dtype(config), rngs=rngs)


@dataclasses.dataclass(frozen=True)
class ParameterCount:
    """Parameters by role. A tied table counts as embedding, and as no unembedding."""

    embedding: int
    unembedding: int
    body: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.unembedding + self.body


def count_parameters(config: ModelConfig, vocab_size: int) -> ParameterCount:
    """Count a model's parameters by role, without making them."""
    network = build(config, vocab_size)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    table = shapes.pop("vocabulary")
    sizes = {name: int(np.prod(leaf.shape)) for name, leaf in table.items() if leaf is not None}
    body = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    return ParameterCount(sizes["embedding"], sizes.get("unembedding", 0), body)
