"""AdamW on a head's parameters: what the ways of fitting one have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax import Array

from calibtrain.fitting.states import Block
from calibtrain.models import Params


def adamw(learning_rate: optax.ScalarOrSchedule, decay: float) -> optax.GradientTransformation:
    """AdamW, with weight decay of matrices alone."""
    return optax.adamw(
        learning_rate,
        weight_decay=decay,
        mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim >= 2, params),
    )


def make_step(
    loss: Callable[[Params, Array, Block], Array], optimizer: optax.GradientTransformation
) -> Callable[[Any, Array, Block], Any]:
    """Compiled: ((parameters, optimizer's state), unembedding, block) -> the same after a step."""

    def step(carry: Any, unembedding: Array, block: Block) -> Any:
        params, state = carry
        gradient = jax.grad(loss)(params, unembedding, block)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step)
