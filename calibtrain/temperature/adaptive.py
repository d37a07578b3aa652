"""Adaptive temperature scaling: log T by a causal decoder layer (Xie et al., EMNLP 2024).

The layer is one of the transformer's own, on the last hidden states; a linear map turns its output
into one number per token. In the paper that number is the logarithm of an inverse temperature: only
the sign of the map differs.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from calibtrain.config import ModelConfig
from calibtrain.models import Params
from calibtrain.models.layers import rotary_angles, rotary_angles_at, rotary_frequencies
from calibtrain.models.transformer import Block, cached
from calibtrain.temperature.bounded import bounded_log_temperature, features, raw_of
from calibtrain.temperature.pointwise import moved, to_number, zero_map

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerCache:
    """The cache of the decoder layer, one row for each sequence.

    Attributes:
        position: number of tokens read.
        keys: keys; that of token t lies at t modulo length.
        values: values, in the same places.
    """

    position: Int[Array, " rows"]
    keys: Float[Array, "rows kv_heads size length"]
    values: Float[Array, "rows kv_heads length size"]


@dataclasses.dataclass(frozen=True)
class Adaptive:
    """log T by a decoder layer on the last hidden states, then a linear map (a `LogTemperature`).

    Attributes:
        model: the configuration of the decoder layer: its width, attention heads and parts.
        limit: temperatures lie between 1 / limit and limit.
        mapped: whether calls are traced under `jax.vmap` (see `models.attention.attend`).
    """

    model: ModelConfig
    limit: float
    mapped: bool = False

    def init(self, key: Array) -> Params:
        """Returns fresh parameters, which give T = 1."""
        block = Block(self.model, mapped=self.mapped, rngs=nnx.Rngs(key))
        layer = nnx.to_pure_dict(nnx.state(block, nnx.Param))
        return {"layer": layer, "out": zero_map(self.model.width)}

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature."""
        return {**params, "out": moved(params["out"], raw_of(temperature, self.limit))}

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        segments: Int[Array, "batch time"],
    ) -> Float[Array, "batch time"]:
        """Returns log T of each token."""
        layer = self._with(params)
        angles = rotary_angles(hidden.shape[1], self._frequencies(layer))
        return self._read(params, layer(_clipped(hidden), angles, segments))

    def empty_cache(self, params: Params, rows: int, length: int, dtype: Any) -> LayerCache:
        """Returns a cache of sequences of which nothing is read yet."""
        empty = self._with(params).attention.empty_cache(rows, length, dtype)
        return LayerCache(jnp.zeros((rows,), jnp.int32), *empty)

    def prefill(
        self,
        params: Params,
        hidden: Float[Array, "rows time width"],
        counts: Int[Array, " rows"],
        length: int,
    ) -> tuple[Float[Array, "rows time"], LayerCache]:
        """Returns log T of the first tokens of rows, and the cache with those that count."""
        layer = self._with(params)
        angles = rotary_angles(hidden.shape[1], self._frequencies(layer))
        one_document = jnp.zeros(hidden.shape[:2], jnp.int32)
        x, key, value = layer.prefill(_clipped(hidden), angles, one_document)
        cache = LayerCache(counts, *cached(key, value, length))
        return self._read(params, x), cache

    def decode(
        self,
        params: Params,
        cache: LayerCache,
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Float[Array, " rows"], LayerCache]:
        """Returns log T of one more token of each row, and the cache with it."""
        layer = self._with(params)
        angles = rotary_angles_at(cache.position, self._frequencies(layer))
        x, keys, values = layer.decode(
            _clipped(hidden), angles, cache.position, cache.keys, cache.values
        )
        return self._read(params, x), LayerCache(cache.position + active, keys, values)

    def _with(self, params: Params) -> Any:
        block = nnx.eval_shape(lambda: Block(self.model, mapped=self.mapped, rngs=nnx.Rngs(0)))
        return nnx.merge(nnx.graphdef(block), nnx.State(params["layer"]))

    def _frequencies(self, layer: Any) -> Float[Array, " half"]:
        size = layer.attention.size
        return rotary_frequencies(size, self.model.rope_base, self.model.rope_scaling)

    def _read(self, params: Params, x: Float[Array, "*tokens width"]) -> Float[Array, "*tokens"]:
        return bounded_log_temperature(to_number(params["out"], features(x)), self.limit)


def _clipped(hidden: Float[Array, "*tokens width"]) -> Float[Array, "*tokens width"]:
    return features(hidden).astype(hidden.dtype)
