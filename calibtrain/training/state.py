"""What a run carries from step to step; everything else is computed from the step number."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from calibtrain.models import Network, Params

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int


RUNNING = ("weight", "loss", "confidence", "correct")
"""Sums over the tokens since the last line of training metrics."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters, optimizer state, step, and the running sums of training metrics.

    The sums live here, not on the host, so that a resumed run writes the very lines that an
    uninterrupted one would have.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: Any
    running: dict[str, Float[Array, ""]]


def initial_state(
    network: Network, optimizer: optax.GradientTransformation, seed: int | Int[Array, ""]
) -> TrainState:
    """The state before the first step: a function of the seed."""
    params = network.init(jax.random.key(seed))
    zeros = {name: jnp.zeros((), jnp.float32) for name in RUNNING}
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), zeros)
