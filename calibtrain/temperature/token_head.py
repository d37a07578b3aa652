"""A head that gives every token a temperature, from whatever computes the logarithm of it."""

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
    """log T of tokens. What `init` gives is T = 1, exactly."""

    def init(self, key: Array) -> Params:
        """Fresh float32 parameters."""

    @property
    def limit(self) -> float:
        """Temperatures lie between 1 / limit and limit."""

    def at(self, params: Params, temperature: float) -> Params:
        """Fresh parameters, moved so that every token has a temperature; the nearest in reach."""

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        segments: Int[Array, "batch time"],
    ) -> Float[Array, "batch time"]:
        """log T of each token, from it and those before it in its segment, in float32."""

    def empty_cache(self, params: Params, rows: int, length: int, dtype: Any) -> Any:
        """As `models.Head`."""

    def decode(
        self,
        params: Params,
        cache: Any,
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Float[Array, " rows"], Any]:
        """`apply` for one more token of each row; and the cache with it."""


@dataclasses.dataclass(frozen=True)
class TokenHead:
    """See `models.Head`: logits are divided by T, after a soft cap.

    Attributes:
        name: of the kind.
        source: of log T.
    """

    name: str
    source: LogTemperature

    def mapped(self) -> TokenHead:
        """See `models.Head`."""
        if not isinstance(self.source, Adaptive):  # the only one that attends
            return self
        return dataclasses.replace(self, source=dataclasses.replace(self.source, mapped=True))

    def init(self, key: Array) -> Params:
        """See `models.Head`."""
        return self.source.init(key)

    @property
    def reach(self) -> tuple[float, float]:
        """See `models.Head`."""
        return 1 / self.source.limit, self.source.limit

    def at(self, params: Params, temperature: float) -> Params:
        """See `models.Head`."""
        return self.source.at(params, temperature)

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        unembedding: Float[Array, "width vocab"],
        segments: Int[Array, "batch time"],
    ) -> tuple[Array, Array, Float[Array, "batch time"]]:
        """See `models.Head`."""
        log_temperature = self.source.apply(params, hidden, segments)
        return hidden, unembedding, jnp.exp(log_temperature)

    def columns(
        self, params: Params, unembedding: Float[Array, "width vocab"]
    ) -> Float[Array, "width vocab"]:
        """See `models.Head`."""
        return unembedding

    def empty_cache(self, params: Params, rows: int, length: int, dtype: Any) -> Any:
        """See `models.Head`."""
        return self.source.empty_cache(params, rows, length, dtype)

    def decode(
        self,
        params: Params,
        cache: Any,
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Array, Float[Array, " rows"], Any]:
        """See `models.Head`."""
        log_temperature, cache = self.source.decode(params, cache, hidden, active)
        return hidden, jnp.exp(log_temperature), cache
