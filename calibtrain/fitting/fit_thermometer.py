"""A Thermometer fitted to several tasks, for one that has no labels (Shen et al., ICML 2024).

A step takes some inputs of one task, drawn at random. Their mean inverse temperature tau multiplies
their logits, and the loss is their nll with a prior: -lambda log Gamma(tau; shape 1.25, scale 4),
whose mode is 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from calibtrain.fitting.descent import adamw, make_step
from calibtrain.fitting.frozen import Frozen
from calibtrain.fitting.states import Block, States
from calibtrain.models import Params
from calibtrain.readout import additive_loss
from calibtrain.temperature.thermometer import Thermometer

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Int

SHAPE, SCALE = 1.25, 4.0


@dataclasses.dataclass(frozen=True)
class ThermometerRecipe:
    """How it is fitted; the authors' but for the number of steps and inputs, which suit LMs.

    Attributes:
        steps: of AdamW, a task each (theirs: 5000).
        tokens: inputs a step (theirs: 128).
        learning_rate: constant.
        weight_decay: of matrices.
        prior: lambda.
        seed: of the first parameters and the draws.
    """

    steps: int = 1000
    tokens: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    prior: float = 1e-2
    seed: int = 0


def fit_thermometer(
    source: Thermometer,
    frozen: Frozen,
    states: States,
    tasks: Sequence[Int[np.ndarray, " documents"]],
    recipe: ThermometerRecipe | None = None,
) -> Params:
    """Its parameters.

    Args:
        source: the head.
        frozen: the model's end.
        states: of the text of all tasks.
        tasks: the documents of each.
        recipe: how.
    """
    recipe = recipe or ThermometerRecipe()
    optimizer = adamw(recipe.learning_rate, recipe.weight_decay)
    params = jax.jit(source.init)(jax.random.key(recipe.seed))
    carry = (params, optimizer.init(params))
    step = make_step(_loss(source, frozen, recipe.prior), optimizer)
    of_tasks = [states.only(documents) for documents in tasks]
    rows = [np.flatnonzero(task.counted.any(axis=1)) for task in of_tasks]
    # of all tasks the same number of rows, so that there is one program
    each = min(task.tokens / len(own) for task, own in zip(of_tasks, rows, strict=True))
    count = max(1, round(recipe.tokens / max(1.0, each)))
    rng = np.random.default_rng(recipe.seed)
    for _ in range(recipe.steps):
        task = rng.integers(len(of_tasks))
        some = rng.choice(rows[task], count, replace=count > len(rows[task]))
        block = of_tasks[task].block(some, recipe.tokens)
        carry = step(carry, frozen.unembedding, block)
    return carry[0]


def _loss(
    source: Thermometer, frozen: Frozen, prior: float
) -> Callable[[Params, Array, Block], Array]:
    def of_block(params: Params, unembedding: Array, block: Block) -> Array:
        hidden = block.hidden.reshape(-1, block.hidden.shape[-1])[block.index]
        weights = jnp.asarray(block.weights)
        log_temperature = source.task_log_temperature(params, hidden, weights)
        total, _ = additive_loss(
            jnp.asarray(hidden),
            unembedding,
            jnp.asarray(block.labels),
            weights,
            lambda stats: stats.nll,
            temperature=jnp.exp(log_temperature),
            vocab_size=frozen.vocab_size,
            soft_cap=frozen.soft_cap,
            chunk=len(block.index),
        )
        log_density = -(SHAPE - 1) * log_temperature - jnp.exp(-log_temperature) / SCALE
        return total / jnp.sum(weights) - prior * log_density

    return of_block


def task_temperature(source: Thermometer, params: Params, states: States) -> float:
    """The temperature of a task from all its inputs, none of their labels; summed in float64."""
    inverse: Any = jax.jit(source.inverse)
    total, count = 0.0, 0.0
    for hidden, _, weights in states.tokens_by_themselves(2**14):
        total += float(np.asarray(inverse(params, hidden), np.float64) @ weights)
        count += float(weights.sum())
    return count / total
