"""A head that gives each token a temperature, whose logarithm a function of choice computes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol

import jax.numpy as jnp
from jax import Array

from calibtrain.models import Params
from calibtrain.temperature.adaptive import Adaptive

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


class LogTemperature(Protocol):
    """Computes log T of tokens. Fresh parameters give T = 1 exactly."""

    def init(self, key: Array) -> Params:
        """Returns fresh float32 parameters."""

    @property
    def limit(self) -> float:
        """Temperatures lie between 1 / limit and limit."""

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature, or the nearest."""

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        segments: Int[Array, "batch time"],
    ) -> Float[Array, "batch time"]:
        """Returns log T of each token, from it and those before it in its segment, in float32."""

    def empty_cache(self, params: Params, rows: int, length: int, dtype: Any) -> Any:
        """Returns a cache of sequences of which nothing is read yet; None if there is none."""

    def prefill(
        self,
        params: Params,
        hidden: Float[Array, "rows time width"],
        counts: Int[Array, " rows"],
        length: int,
    ) -> tuple[Float[Array, "rows time"], Any]:
        """Returns log T of the first tokens of rows, and the cache with those that count."""

    def decode(
        self,
        params: Params,
        cache: Any,
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Float[Array, " rows"], Any]:
        """Returns log T of one more token of each row, and the cache with it."""


@dataclasses.dataclass(frozen=True)
class TokenHead:
    """Divides each token's logits by its own T, after a soft cap (a `models.TemperatureHead`).

    Attributes:
        name: name of the kind.
        source: computes log T.
    """

    name: str
    source: LogTemperature

    def mapped(self) -> TokenHead:
        """Returns this head, to be traced under `jax.vmap` over parameters and rows."""
        if not isinstance(self.source, Adaptive):  # the only one that attends
            return self
        return dataclasses.replace(self, source=dataclasses.replace(self.source, mapped=True))

    def init(self, key: Array) -> Params:
        """Returns fresh parameters, which give T = 1."""
        return self.source.init(key)

    @property
    def reach(self) -> tuple[float, float]:
        """The lowest and the highest temperature that all tokens can be given."""
        return 1 / self.source.limit, self.source.limit

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature."""
        return self.source.at(params, temperature)

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        unembedding: Float[Array, "width vocab"],
        segments: Int[Array, "batch time"],
    ) -> tuple[Array, Array, Float[Array, "batch time"]]:
        """Returns hidden states, unembedding and temperatures for `readout`."""
        log_temperature = self.source.apply(params, hidden, segments)
        return hidden, unembedding, jnp.exp(log_temperature)

    def columns(
        self, params: Params, unembedding: Float[Array, "width vocab"]
    ) -> Float[Array, "width vocab"]:
        """Returns the unembedding that `apply` returns."""
        return unembedding

    def empty_cache(self, params: Params, rows: int, length: int, dtype: Any) -> Any:
        """Returns a cache of sequences of which nothing is read yet."""
        return self.source.empty_cache(params, rows, length, dtype)

    def prefill(
        self,
        params: Params,
        hidden: Float[Array, "rows time width"],
        counts: Int[Array, " rows"],
        length: int,
    ) -> tuple[Array, Float[Array, "rows time"], Any]:
        """Returns hidden states and temperatures of the first tokens of rows, and the cache."""
        log_temperature, cache = self.source.prefill(params, hidden, counts, length)
        return hidden, jnp.exp(log_temperature), cache

    def decode(
        self,
        params: Params,
        cache: Any,
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Array, Float[Array, " rows"], Any]:
        """Returns hidden state and temperature of one more token of each row, and the cache."""
        log_temperature, cache = self.source.decode(params, cache, hidden, active)
        return hidden, jnp.exp(log_temperature), cache
