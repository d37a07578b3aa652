"""Temperatures of a token by itself: one for all, linear in its hidden state, or by a small MLP."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.models import Params
from calibtrain.temperature.bounded import bounded_log_temperature, features, raw_of

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class Global:
    """One temperature for all tokens (Guo et al., ICML 2017).

    Attributes:
        limit: of temperatures.
    """

    limit: float

    def init(self, key: Array) -> Params:
        """See `LogTemperature`."""
        return {"raw": jnp.zeros((), jnp.float32)}

    def at(self, params: Params, temperature: float) -> Params:
        """See `LogTemperature`."""
        return {"raw": jnp.float32(raw_of(temperature, self.limit))}

    def of(self, params: Params, hidden: Float[Array, "*tokens width"]) -> Float[Array, "*tokens"]:
        """log T of each token."""
        log_temperature = bounded_log_temperature(params["raw"], self.limit)
        return jnp.broadcast_to(log_temperature, hidden.shape[:-1])


@dataclasses.dataclass(frozen=True)
class Linear:
    """log T = w h + b (the linear variant of Xie et al., EMNLP 2024).

    Attributes:
        width: of the hidden states.
        limit: of temperatures.
    """

    width: int
    limit: float

    def init(self, key: Array) -> Params:
        """See `LogTemperature`."""
        return zero_map(self.width)

    def at(self, params: Params, temperature: float) -> Params:
        """See `LogTemperature`."""
        return moved(params, raw_of(temperature, self.limit))

    def of(self, params: Params, hidden: Float[Array, "*tokens width"]) -> Float[Array, "*tokens"]:
        """log T of each token."""
        return bounded_log_temperature(to_number(params, features(hidden)), self.limit)


@dataclasses.dataclass(frozen=True)
class MLP:
    """log T = w gelu(A h + a) + b (the MLP variant of Xie et al., EMNLP 2024).

    Attributes:
        width: of the hidden states.
        hidden: of the layer.
        limit: of temperatures.
    """

    width: int
    hidden: int
    limit: float

    def init(self, key: Array) -> Params:
        """See `LogTemperature`."""
        kernel = jax.random.normal(key, (self.width, self.hidden), jnp.float32)
        return {
            "kernel": kernel * self.width**-0.5,
            "bias": jnp.zeros((self.hidden,), jnp.float32),
            "out": zero_map(self.hidden),
        }

    def at(self, params: Params, temperature: float) -> Params:
        """See `LogTemperature`."""
        return {**params, "out": moved(params["out"], raw_of(temperature, self.limit))}

    def of(self, params: Params, hidden: Float[Array, "*tokens width"]) -> Float[Array, "*tokens"]:
        """log T of each token."""
        inner = jax.nn.gelu(features(hidden) @ params["kernel"] + params["bias"])
        return bounded_log_temperature(to_number(params["out"], inner), self.limit)


@dataclasses.dataclass(frozen=True)
class Pointwise:
    """See `LogTemperature`: nothing is kept from token to token.

    Attributes:
        function: of the hidden state.
    """

    function: Global | Linear | MLP

    def init(self, key: Array) -> Params:
        """See `LogTemperature`."""
        return self.function.init(key)

    @property
    def limit(self) -> float:
        """See `LogTemperature`."""
        return self.function.limit

    def at(self, params: Params, temperature: float) -> Params:
        """See `LogTemperature`."""
        return self.function.at(params, temperature)

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        segments: Int[Array, "batch time"],
    ) -> Float[Array, "batch time"]:
        """See `LogTemperature`."""
        return self.function.of(params, hidden)

    def empty_cache(self, params: Params, rows: int, length: int, dtype: Any) -> None:
        """Nothing."""

    def decode(
        self,
        params: Params,
        cache: None,
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Float[Array, " rows"], None]:
        """See `LogTemperature`."""
        return self.function.of(params, hidden), None


def zero_map(width: int) -> Params:
    """Parameters of a linear map to a number that is 0 of everything."""
    return {"kernel": jnp.zeros((width, 1), jnp.float32), "bias": jnp.zeros((), jnp.float32)}


def moved(params: Params, value: float) -> Params:
    """Parameters from `zero_map`, moved so that the map is a number of everything."""
    return {**params, "bias": jnp.float32(value)}


def to_number(params: Params, x: Float[Array, "*tokens width"]) -> Float[Array, "*tokens"]:
    """w x + b."""
    return (x @ params["kernel"])[..., 0] + params["bias"]
