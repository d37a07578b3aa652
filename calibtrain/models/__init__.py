"""Language models as pure functions: parameters in, hidden states and unembedding out.

A model is written as a Flax NNX module and used as a `Network`: its graph definition closed over,
its parameters a plain nested dict of float32 arrays, so that `jax.jit` sees flat leaves.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from calibtrain.config import ModelConfig
from calibtrain.models.adapter import LowRank
from calibtrain.models.lstm import LSTM, RecurrentState
from calibtrain.models.transformer import KeyValueCache, Transformer

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


Params = dict[str, Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TemperedCache:
    """What a network with a head keeps.

    Attributes:
        body: what the network keeps without one.
        head: what the head keeps; None for one that looks at a token alone.
    """

    body: KeyValueCache | RecurrentState
    head: Any


Cache = KeyValueCache | RecurrentState | TemperedCache
"""What decoding keeps, a row a sequence: `jax.tree.map(lambda x: x[index], cache)` reorders it."""


class TemperatureHead(Protocol):
    """Divides a network's logits by temperatures that it reads off the last hidden states.

    `calibtrain.temperature` has the kinds. An attention head is never called a head alone.
    """

    @property
    def name(self) -> str:
        """The kind, as signatures name it."""

    def mapped(self) -> TemperatureHead:
        """Returns this head, to be traced under `jax.vmap` over parameters and rows."""

    def init(self, key: Array) -> Params:
        """Returns fresh float32 parameters, which give T = 1."""

    @property
    def reach(self) -> tuple[float, float]:
        """The lowest and the highest temperature that all tokens can be given."""

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature within reach."""

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        unembedding: Float[Array, "width vocab"],
        segments: Int[Array, "batch time"],
    ) -> tuple[
        Float[Array, "batch time inner"],
        Float[Array, "inner vocab"],
        Float[Array, "batch time"] | None,
    ]:
        """Returns hidden states, unembedding and temperatures for `readout`.

        The temperature of a token depends on it and those before it in its segment only. It is None
        for a head that changes the unembedding instead.
        """

    def columns(
        self, params: Params, unembedding: Float[Array, "width vocab"]
    ) -> Float[Array, "inner vocab"]:
        """Returns the unembedding that `apply` returns."""

    def empty_cache(self, params: Params, rows: int, length: int, dtype: Any) -> Any:
        """Returns the head's part of `Network.empty_cache`, in the `dtype` of the layers."""

    def decode(
        self,
        params: Params,
        cache: Any,
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Float[Array, "rows inner"], Float[Array, " rows"] | None, Any]:
        """Returns hidden state and temperature of one more token of each row, and the cache."""


TEMPERATURE = "temperature"
"""Where a head's parameters are among a network's."""
ADAPTER = "adapter"
"""Where those of low-rank adapters are."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A model without its parameters.

    Attributes:
        config: the architecture.
        vocab_size: number of real vocabulary entries.
        head: what divides the logits; none: nothing does. Its parameters are `params[TEMPERATURE]`.
        adapter: what is added to the layers' matrices; its parameters are `params[ADAPTER]`.
    """

    config: ModelConfig
    vocab_size: int
    _graph: Any = dataclasses.field(repr=False)
    head: TemperatureHead | None = None
    adapter: LowRank | None = None

    def mapped(self) -> Network:
        """Returns this network, to be traced under `jax.vmap` over parameters and rows."""
        head = None if self.head is None else self.head.mapped()
        graph = _graph_of(self.config, self.vocab_size, mapped=True)
        return dataclasses.replace(self, _graph=graph, head=head)

    @property
    def reading(self) -> dict[str, Any]:
        """What `readout` and its kin must know of the model to read what `apply` returns."""
        return {"vocab_size": self.vocab_size, "soft_cap": self.config.logit_soft_cap}

    def init(self, key: Array) -> Params:
        """Fresh float32 parameters. Those of the model are the same with a head and without."""
        module = _module(self.config, self.vocab_size, nnx.Rngs(key))
        params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
        if self.adapter is not None:
            params[ADAPTER] = self.adapter.init(jax.random.fold_in(key, 2), params)
        if self.head is not None:
            params[TEMPERATURE] = self.head.init(jax.random.fold_in(key, 1))
        return params

    def apply(
        self,
        params: Params,
        tokens: Int[Array, "batch time"],
        segments: Int[Array, "batch time"],
    ) -> tuple[
        Float[Array, "batch time width"],
        Float[Array, "width vocab"],
        Float[Array, "batch time"] | None,
    ]:
        """Hidden states, unembedding and temperature (None without a head), ready for `readout`.

        Args:
            params: from `init`.
            tokens: input ids.
            segments: number of the document, within its row, that each token belongs to.
        """
        module = self._with(params)
        hidden, unembedding = module(tokens, segments), module.vocabulary.columns()
        if self.head is None:
            return hidden, unembedding, None
        return self.head.apply(params[TEMPERATURE], hidden, unembedding, segments)

    def unembedding(self, params: Params) -> Float[Array, "width vocab"]:
        """The unembedding alone, as `apply` returns it."""
        columns = self._with(params).vocabulary.columns()
        return columns if self.head is None else self.head.columns(params[TEMPERATURE], columns)

    def empty_cache(self, params: Params, rows: int, length: int) -> Cache:
        """A cache of so many sequences of which nothing is read yet.

        Args:
            params: from `init`.
            rows: number of sequences.
            length: how many of its last tokens a sequence sees (a transformer's context).
        """
        module = self._with(params)
        body = module.empty_cache(rows, length)
        if self.head is None:
            return body
        dtype = module.vocabulary.dtype
        return TemperedCache(body, self.head.empty_cache(params[TEMPERATURE], rows, length, dtype))

    def decode(
        self,
        params: Params,
        cache: Cache,
        tokens: Int[Array, " rows"],
        active: Bool[Array, " rows"] | None = None,
    ) -> tuple[Float[Array, "rows width"], Float[Array, " rows"] | None, Cache]:
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
            The hidden state and the temperature (None without a head) of each token, and the cache
            with it.
        """
        active = jnp.ones(tokens.shape, bool) if active is None else active
        module: Any = self._with(params)
        if self.head is None:
            hidden, cache = module.decode(cache, tokens, active)
            return hidden, None, cache
        assert isinstance(cache, TemperedCache)
        hidden, body = module.decode(cache.body, tokens, active)
        hidden, temperature, head = self.head.decode(
            params[TEMPERATURE], cache.head, hidden, active
        )
        return hidden, temperature, TemperedCache(body, head)

    def prefill(
        self,
        params: Params,
        tokens: Int[Array, "rows time"],
        counts: Int[Array, " rows"],
        length: int,
    ) -> tuple[Float[Array, "rows width"], Float[Array, " rows"] | None, Cache]:
        """Read the first tokens of sequences, one after another.

        Args:
            params: from `init`.
            tokens: of each row; what lies beyond its count is not read.
            counts: how many tokens a row has, at least 1.
            length: as for `empty_cache`.

        Returns:
            The hidden state and the temperature (None without a head) of each row's last token, and
            the cache.
        """

        def read(time: Array, carry: tuple[Any, Any, Cache]) -> tuple[Any, Any, Cache]:
            last, last_temperature, cache = carry
            active = time < counts
            hidden, temperature, cache = self.decode(params, cache, tokens[:, time], active)
            if temperature is not None:
                temperature = jnp.where(active, temperature, last_temperature)
            return jnp.where(active[:, None], hidden, last), temperature, cache

        cache = self.empty_cache(params, len(tokens), length)
        found = jax.eval_shape(lambda: self.decode(params, cache, tokens[:, 0])[:2])
        hidden, temperature = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), found)
        return jax.lax.fori_loop(0, jnp.max(counts), read, (hidden, temperature, cache))

    def _with(self, params: Params) -> Any:
        body = {n: part for n, part in params.items() if n not in (TEMPERATURE, ADAPTER)}
        if self.adapter is not None:
            body = self.adapter.merged(body, params[ADAPTER])
        return nnx.merge(self._graph, nnx.State(body))


def build(config: ModelConfig, vocab_size: int) -> Network:
    """The network of a configuration for a vocabulary, without a head (`temperature.tempered`)."""
    return Network(config, vocab_size, _graph_of(config, vocab_size))


def _graph_of(config: ModelConfig, vocab_size: int, *, mapped: bool = False) -> Any:
    return nnx.graphdef(nnx.eval_shape(lambda: _module(config, vocab_size, nnx.Rngs(0), mapped)))


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """The type that layers compute in: bfloat16 on accelerators, float32 on the CPU."""
    if config.compute == "auto":
        return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)
    return jnp.dtype(config.compute)


def _module(config: ModelConfig, vocab_size: int, rngs: nnx.Rngs, mapped: bool = False) -> Any:
    if config.kind == "lstm":
        return LSTM(config, vocab_size, compute_dtype(config), rngs=rngs)
    return Transformer(config, vocab_size, compute_dtype(config), mapped=mapped, rngs=rngs)


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
