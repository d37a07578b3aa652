"""Temperatures that can be neither 0 nor infinite: what a head reads and what it says, bounded.

log T = L tanh(raw / L) with L = log(limit): the identity, with slope 1, about T = 1; and within
1 / limit and limit whatever `raw` is. (Adaptive temperature scaling clips exp(raw) at 10, which
lets no gradient through beyond it; Xie et al., EMNLP 2024.)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float

FEATURE_LIMIT = 1e4
"""Features are clipped here, in float32: far from what a final norm lets out, and so far below
what overflows that sums over them stay finite. What is no number stays none."""

_INSIDE = 1 - 1e-6  # rounding must not carry exp(log T) past the limit


def bounded_log_temperature(raw: Float[Array, "*tokens"], limit: float) -> Float[Array, "*tokens"]:
    """log T of what a head computes, any real number, within +-log(limit)."""
    reach = _reach(limit)
    return reach * jnp.tanh(raw / reach)


def raw_of(temperature: float, limit: float) -> float:
    """What `bounded_log_temperature` makes a temperature of; the nearest, if it is out of reach."""
    reach = _reach(limit)
    inside = max(-_INSIDE, min(_INSIDE, math.log(temperature) / reach))
    return reach * math.atanh(inside)


def features(hidden: Float[Array, "*tokens width"]) -> Float[Array, "*tokens width"]:
    """Hidden states as heads read them: float32 and clipped."""
    return jnp.clip(hidden.astype(jnp.float32), -FEATURE_LIMIT, FEATURE_LIMIT)


def _reach(limit: float) -> float:
    return math.log(limit) * _INSIDE
