"""Temperatures from a token alone: one for all, linear in the hidden state, or by a small MLP."""

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
        limit: temperatures lie between 1 / limit and limit.
    """

    limit: float

    def init(self, key: Array) -> Params:
        """Returns fresh parameters, which give T = 1."""
        return {"raw": jnp.zeros((), jnp.float32)}

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature."""
        return {"raw": jnp.float32(raw_of(temperature, self.limit))}

    def of(self, params: Params, hidden: Float[Array, "*tokens width"]) -> Float[Array, "*tokens"]:
        """Returns log T of each token."""
        log_temperature = bounded_log_temperature(params["raw"], self.limit)
        return jnp.broadcast_to(log_temperature, hidden.shape[:-1])


@dataclasses.dataclass(frozen=True)
class Linear:
    """log T = w h + b (the linear variant of Xie et al., EMNLP 2024).

    Attributes:
        width: width of the hidden states.
        limit: temperatures lie between 1 / limit and limit.
    """

    width: int
    limit: float

    def init(self, key: Array) -> Params:
        """Returns fresh parameters, which give T = 1."""
        return zero_map(self.width)

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature."""
        return moved(params, raw_of(temperature, self.limit))

    def of(self, params: Params, hidden: Float[Array, "*tokens width"]) -> Float[Array, "*tokens"]:
        """Returns log T of each token."""
        return bounded_log_temperature(to_number(params, features(hidden)), self.limit)


@dataclasses.dataclass(frozen=True)
class MLP:
    """log T = w gelu(A h + a) + b (the MLP variant of Xie et al., EMNLP 2024).

    Attributes:
        width: width of the hidden states.
        hidden: width of the layer.
        limit: temperatures lie between 1 / limit and limit.
    """

    width: int
    hidden: int
    limit: float

    def init(self, key: Array) -> Params:
        """Returns fresh parameters, which give T = 1."""
        kernel = jax.random.normal(key, (self.width, self.hidden), jnp.float32)
        return {
            "kernel": kernel * self.width**-0.5,
            "bias": jnp.zeros((self.hidden,), jnp.float32),
            "out": zero_map(self.hidden),
        }

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature."""
        return {**params, "out": moved(params["out"], raw_of(temperature, self.limit))}

    def of(self, params: Params, hidden: Float[Array, "*tokens width"]) -> Float[Array, "*tokens"]:
        """Returns log T of each token."""
        inner = jax.nn.gelu(features(hidden) @ params["kernel"] + params["bias"])
        return bounded_log_temperature(to_number(params["out"], inner), self.limit)


@dataclasses.dataclass(frozen=True)
class Pointwise:
    """log T by a function of a token's hidden state alone (a `LogTemperature` without a cache).

    Attributes:
        function: returns log T.
    """

    function: Global | Linear | MLP

    def init(self, key: Array) -> Params:
        """Returns fresh parameters, which give T = 1."""
        return self.function.init(key)

    @property
    def limit(self) -> float:
        """Temperatures lie between 1 / limit and limit."""
        return self.function.limit

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature."""
        return self.function.at(params, temperature)

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        segments: Int[Array, "batch time"],
    ) -> Float[Array, "batch time"]:
        """Returns log T of each token."""
        return self.function.of(params, hidden)

    def empty_cache(self, params: Params, rows: int, length: int, dtype: Any) -> None:
        """Returns None: there is nothing to keep."""

    def prefill(
        self,
        params: Params,
        hidden: Float[Array, "rows time width"],
        counts: Int[Array, " rows"],
        length: int,
    ) -> tuple[Float[Array, "rows time"], None]:
        """Returns log T of the first tokens of rows, and the cache with those that count."""
        return self.function.of(params, hidden), None

    def decode(
        self,
        params: Params,
        cache: None,
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Float[Array, " rows"], None]:
        """Returns log T of one more token of each row, and the cache with it."""
        return self.function.of(params, hidden), None


def zero_map(width: int) -> Params:
    """Returns parameters of a linear map to one number, which map everything to 0."""
    return {"kernel": jnp.zeros((width, 1), jnp.float32), "bias": jnp.zeros((), jnp.float32)}


def moved(params: Params, value: float) -> Params:
    """Returns parameters from `zero_map`, changed so that they map everything to a value."""
    return {**params, "bias": jnp.float32(value)}


def to_number(params: Params, x: Float[Array, "*tokens width"]) -> Float[Array, "*tokens"]:
    """Returns w x + b."""
    return (x @ params["kernel"])[..., 0] + params["bias"]
