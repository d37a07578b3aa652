"""Temperatures that can be neither 0 nor infinite: the inputs and outputs of heads are bounded.

log T = L tanh(raw / L) with L = log(limit) has slope 1 at T = 1, and keeps T between 1 / limit and
limit for every `raw`. (Adaptive temperature scaling clips exp(raw) at 10, and no gradient flows
beyond; Xie et al., EMNLP 2024.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float

FEATURE_LIMIT = 1e4
"""Features are clipped here, in float32: far above the outputs of a final norm, and so far below
overflow that sums over them stay finite. NaN is passed through."""

_INSIDE = 1 - 1e-6  # rounding must not carry exp(log T) past the limit


def bounded_log_temperature(raw: Float[Array, "*tokens"], limit: float) -> Float[Array, "*tokens"]:
    """Returns log T, within +-log(limit), for any real number that a head computes."""
    reach = _reach(limit)
    return reach * jnp.tanh(raw / reach)


def raw_of(temperature: float, limit: float) -> float:
    """Returns the `raw` of a temperature, or of the nearest one within the limit."""
    reach = _reach(limit)
    inside = max(-_INSIDE, min(_INSIDE, math.log(temperature) / reach))
    return reach * math.atanh(inside)


def features(hidden: Float[Array, "*tokens width"]) -> Float[Array, "*tokens width"]:
    """Returns hidden states as heads read them: float32 and clipped."""
    return jnp.clip(hidden.astype(jnp.float32), -FEATURE_LIMIT, FEATURE_LIMIT)


def _reach(limit: float) -> float:
    return math.log(limit) * _INSIDE
