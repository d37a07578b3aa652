"""Thermometer: the mean inverse temperature over a task's inputs (Shen et al., ICML 2024).

For an input, tau = softplus(f(h)): f has three branches Linear-ReLU-Linear to one number, and a
linear map of the three. A task's inverse temperature is the mean of tau over its inputs, for which
no label is needed. Here an input is a token's last hidden state; within a network, the task is the
document up to that token, so that nothing is known before it is read. `task_log_temperature` serves
tasks whose text is given at once.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.models import Params
from calibtrain.temperature.bounded import bounded_log_temperature, features, raw_of
from calibtrain.temperature.pointwise import moved, to_number, zero_map

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int

BRANCHES = 3
_SHARE = (math.e - 1) / math.e
_LEAST, _MOST = -10.0, 60.0
"""Bounds of f: softplus is then within 8e-5 and 61, more than any limit asks for."""


@dataclasses.dataclass(frozen=True)
class Thermometer:
    """log T by the mean of tau over the tokens before and the token itself (a `LogTemperature`).

    Attributes:
        width: width of the hidden states.
        hidden: width of each branch's layer.
        limit: temperatures lie between 1 / limit and limit.
    """

    width: int
    hidden: int
    limit: float

    def init(self, key: Array) -> Params:
        """Returns fresh parameters, which give T = 1."""
        first, second = jax.random.split(key)
        kernel = jax.random.normal(first, (self.width, BRANCHES * self.hidden), jnp.float32)
        branch = jax.random.normal(second, (BRANCHES, self.hidden), jnp.float32)
        return {
            "kernel": kernel * self.width**-0.5,
            "bias": jnp.zeros((BRANCHES * self.hidden,), jnp.float32),
            "branch": {
                "kernel": branch * self.hidden**-0.5,
                "bias": jnp.zeros((BRANCHES,), jnp.float32),
            },
            "out": zero_map(BRANCHES),
        }

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature."""
        log_inverse = raw_of(1 / temperature, self.limit)
        log_inverse = max(_log_softplus(_LEAST), min(_log_softplus(_MOST), log_inverse))
        f = math.log1p(math.expm1(math.expm1(log_inverse)) / _SHARE)  # the inverse of that
        return {**params, "out": moved(params["out"], f)}

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        segments: Int[Array, "batch time"],
    ) -> Float[Array, "batch time"]:
        """Returns log T of each token."""
        inverse = self.inverse(params, hidden)
        starts = jnp.pad(
            segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)), constant_values=True
        )

        def join(before: Any, after: Any) -> Any:
            started, *sums = before
            starting, *more = after
            kept = [jnp.where(starting, b, a + b) for a, b in zip(sums, more, strict=True)]
            return (started | starting, *kept)

        parts = (starts, inverse, jnp.ones_like(inverse))
        _, total, count = jax.lax.associative_scan(join, parts, axis=1)
        return -jnp.log(total / count)

    def empty_cache(
        self, params: Params, rows: int, length: int, dtype: Any
    ) -> Float[Array, "rows 2"]:
        """Returns for each row the sum of inverse temperatures and their number, both 0."""
        return jnp.zeros((rows, 2), jnp.float32)

    def prefill(
        self,
        params: Params,
        hidden: Float[Array, "rows time width"],
        counts: Int[Array, " rows"],
        length: int,
    ) -> tuple[Float[Array, "rows time"], Float[Array, "rows 2"]]:
        """Returns log T of the first tokens of rows, and the cache with those that count."""
        inverse = self.inverse(params, hidden)
        places = jnp.arange(hidden.shape[1])
        total = jnp.sum(jnp.where(places < counts[:, None], inverse, 0.0), axis=1)
        log_temperature = -jnp.log(jnp.cumsum(inverse, axis=1) / (1 + places))
        return log_temperature, jnp.stack([total, counts.astype(jnp.float32)], axis=-1)

    def decode(
        self,
        params: Params,
        cache: Float[Array, "rows 2"],
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Float[Array, " rows"], Float[Array, "rows 2"]]:
        """Returns log T of one more token of each row, and the cache with it."""
        inverse = self.inverse(params, hidden)
        sums = cache + jnp.stack([inverse, jnp.ones_like(inverse)], axis=-1)
        return -jnp.log(sums[:, 0] / sums[:, 1]), jnp.where(active[:, None], sums, cache)

    def inverse(
        self, params: Params, hidden: Float[Array, "*tokens width"]
    ) -> Float[Array, "*tokens"]:
        """Returns tau of each input, within 1 / limit and limit."""
        inner = jax.nn.relu(features(hidden) @ params["kernel"] + params["bias"])
        inner = inner.reshape(*inner.shape[:-1], BRANCHES, self.hidden)
        branch = params["branch"]
        three = jnp.sum(inner * branch["kernel"], axis=-1) + branch["bias"]
        f = jnp.clip(to_number(params["out"], three), _LEAST, _MOST)
        # log softplus(f + log(e - 1)), so written that it is 0 at f = 0 to the bit: T = 1
        log_inverse = jnp.log1p(jnp.log1p(_SHARE * jnp.expm1(f)))
        return jnp.exp(bounded_log_temperature(log_inverse, self.limit))

    def task_log_temperature(
        self,
        params: Params,
        hidden: Float[Array, "*tokens width"],
        weights: Float[Array, "*tokens"],
    ) -> Float[Array, ""]:
        """Returns log T of a task, from its inputs without labels.

        Args:
            params: from `init`.
            hidden: hidden states of the inputs.
            weights: weight of each input in the mean.
        """
        inverse = self.inverse(params, hidden)
        return -jnp.log(jnp.sum(inverse * weights) / jnp.sum(weights))


def _log_softplus(f: float) -> float:
    """Returns log softplus(f + log(e - 1))."""
    return math.log1p(math.log1p(_SHARE * math.expm1(f)))
