"""The state that a run carries from step to step; all else is computed from the step number."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from calibtrain.models import Network, Params
from calibtrain.training.objective import LossState, Objective

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


RUNNING = ("weight", "loss", "confidence", "correct")
"""Sums over the tokens since the last line of training metrics."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Parameters, optimizer state, step, running sums of metrics, and what losses remember.

    The sums live here, not on the host, so that a resumed run writes the very lines that an
    uninterrupted one would have.
    """

    step: Int[Array, ""]
    params: Params
    opt_state: Any
    running: dict[str, Float[Array, ""]]
    loss_state: LossState = dataclasses.field(default_factory=dict)


def initial_state(
    network: Network,
    optimizer: optax.GradientTransformation,
    seed: int | Int[Array, ""],
    objective: Objective | None = None,
    params: Params | None = None,
) -> TrainState:
    """Returns the state before the first step, which is a function of the seed.

    Args:
        network: the model.
        optimizer: from `make_optimizer`.
        seed: of the parameters.
        objective: what is minimised; cross entropy by default.
        params: parameters that replace those that the seed draws.
    """
    objective = objective or Objective()
    params = {**network.init(jax.random.key(seed)), **(params or {})}
    zeros = {name: jnp.zeros((), jnp.float32) for name in running_sums(objective)}
    return TrainState(
        jnp.zeros((), jnp.int32),
        params,
        optimizer.init(params),
        zeros,
        objective.initial_state(),
    )


def running_sums(objective: Objective) -> tuple[str, ...]:
    """Returns the names of an objective's running sums; the loss is the nll for cross entropy."""
    terms = tuple(f"loss/{name}" for name in objective.names)
    return (*RUNNING, *(() if objective.is_cross_entropy else ("nll",)), *terms)


@jax.jit
def all_finite(tree: Any) -> Bool[Array, ""]:
    """Returns whether every floating-point number of a tree is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves]))
