"""A temperature that depends on how many tokens of its document the model has read before.

A model that sees more of a text is more confident, and its over-confidence may change with it.
raw log T is linear in log2(1 + tokens before) between knots at 0, 1, 3, 7, ..., with one parameter
each. Tokens outside the window are not counted, since the model has not read them.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.models import Params
from calibtrain.temperature.bounded import bounded_log_temperature, raw_of

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int

KNOTS = 21
"""Number of knots; the last one stands for about a million tokens before, and for more."""


@dataclasses.dataclass(frozen=True)
class Position:
    """log T by the position of a token in its segment (a `LogTemperature`).

    Attributes:
        limit: temperatures lie between 1 / limit and limit.
    """

    limit: float

    def init(self, key: Array) -> Params:
        """Returns fresh parameters, which give T = 1."""
        return {"raw": jnp.zeros((KNOTS,), jnp.float32)}

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature."""
        return {"raw": jnp.full((KNOTS,), raw_of(temperature, self.limit), jnp.float32)}

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        segments: Int[Array, "batch time"],
    ) -> Float[Array, "batch time"]:
        """Returns log T of each token."""
        return self._at(params, places(segments))

    def empty_cache(
        self, params: Params, rows: int, length: int, dtype: Any
    ) -> Int[Array, "rows 2"]:
        """Returns for each row the number of tokens read, and the most that the model sees."""
        return jnp.tile(jnp.array([[0, length]], jnp.int32), (rows, 1))

    def prefill(
        self,
        params: Params,
        hidden: Float[Array, "rows time width"],
        counts: Int[Array, " rows"],
        length: int,
    ) -> tuple[Float[Array, "rows time"], Int[Array, "rows 2"]]:
        """Returns log T of the first tokens of rows, and the cache with those that count."""
        place = jnp.broadcast_to(jnp.arange(hidden.shape[1]), hidden.shape[:2])
        cache = jnp.stack([counts, jnp.full_like(counts, length)], axis=-1)
        return self._at(params, place), cache

    def decode(
        self,
        params: Params,
        cache: Int[Array, "rows 2"],
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Float[Array, " rows"], Int[Array, "rows 2"]]:
        """Returns log T of one more token of each row, and the cache with it."""
        read, most = cache[:, 0], cache[:, 1]
        log_temperature = self._at(params, jnp.minimum(read, most - 1))
        return log_temperature, cache.at[:, 0].add(active.astype(jnp.int32))

    def _at(self, params: Params, place: Int[Array, "*tokens"]) -> Float[Array, "*tokens"]:
        x = jnp.minimum(jnp.log2(1.0 + place.astype(jnp.float32)), KNOTS - 1.0)
        near = jnp.maximum(0.0, 1.0 - jnp.abs(x[..., None] - jnp.arange(KNOTS)))
        return bounded_log_temperature(near @ params["raw"], self.limit)


def places(segments: Int[Array, "batch time"]) -> Int[Array, "batch time"]:
    """Returns for each token how many of its segment stand before it."""
    index = jnp.arange(segments.shape[1], dtype=jnp.int32)
    starts = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    return index - jax.lax.cummax(jnp.where(starts, index, 0), axis=1)
