"""A Thermometer fitted to several tasks, for one without labels (Shen et al., ICML 2024).

A step takes some inputs of one task, drawn at random. Their mean inverse temperature tau multiplies
their logits, and the loss is their nll with a prior: -lambda log Gamma(tau; shape 1.25, scale 4),
whose mode is 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from calibtrain.fitting.head import MeanLoss, adamw, make_step
from calibtrain.fitting.hidden_states import HiddenBatch, HiddenStates, TokenBatch
from calibtrain.fitting.output_layer import OutputLayer
from calibtrain.models import Params
from calibtrain.readout import additive_loss
from calibtrain.scoring.scorer import one_behind
from calibtrain.temperature.thermometer import Thermometer

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Int

SHAPE, SCALE = 1.25, 4.0


@dataclasses.dataclass(frozen=True)
class ThermometerRecipe:
    """How a Thermometer is fitted: as by its authors, except for the numbers of steps and inputs.

    Attributes:
        steps: number of steps of AdamW, each on one task (theirs: 5000).
        tokens: number of inputs that a step reads (theirs: 128).
        learning_rate: is constant.
        weight_decay: applied to matrices only.
        prior: lambda, the weight of the prior.
        seed: seeds the first parameters and the draws.
    """

    steps: int = 1000
    tokens: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    prior: float = 1e-2
    seed: int = 0


def fit_thermometer(
    source: Thermometer,
    output_layer: OutputLayer,
    states: HiddenStates,
    tasks: Sequence[Int[np.ndarray, " documents"]],
    recipe: ThermometerRecipe | None = None,
) -> Params:
    """Returns the parameters of a Thermometer, fitted to several tasks.

    Args:
        source: the Thermometer.
        output_layer: the frozen model's.
        states: hidden states of the text of all tasks.
        tasks: the documents of each task.
        recipe: how; None means `ThermometerRecipe()`.
    """
    recipe = recipe or ThermometerRecipe()
    optimizer = adamw(recipe.learning_rate, recipe.weight_decay)
    params = jax.jit(source.init)(jax.random.key(recipe.seed))
    carry = (params, optimizer.init(params))
    step = make_step(_mean_loss(source, output_layer, recipe.prior), optimizer)
    of_tasks = [states.only(documents) for documents in tasks]
    rows = [task.rows_that_count() for task in of_tasks]
    # every task gives the same number of rows, so that one program serves all
    each = min(task.tokens / len(own) for task, own in zip(of_tasks, rows, strict=True))
    count = max(1, round(recipe.tokens / max(1.0, each)))
    rng = np.random.default_rng(recipe.seed)
    for _ in range(recipe.steps):
        task = rng.integers(len(of_tasks))
        some = rng.choice(rows[task], count, replace=count > len(rows[task]))
        batch = of_tasks[task].batch(some, recipe.tokens)
        carry = step(carry, output_layer.unembedding, batch)
    return carry[0]


def _mean_loss(source: Thermometer, output_layer: OutputLayer, prior: float) -> MeanLoss:
    def of_batch(params: Params, unembedding: Array, batch: HiddenBatch) -> Array:
        hidden = batch.hidden.reshape(-1, batch.hidden.shape[-1])[batch.index]
        weights = jnp.asarray(batch.weights)
        log_temperature = source.task_log_temperature(params, hidden, weights)
        total, _ = additive_loss(
            jnp.asarray(hidden),
            unembedding,
            jnp.asarray(batch.labels),
            weights,
            lambda stats: stats.nll,
            temperature=jnp.exp(log_temperature),
            vocab_size=output_layer.vocab_size,
            soft_cap=output_layer.soft_cap,
            chunk=len(batch.index),
        )
        log_density = -(SHAPE - 1) * log_temperature - jnp.exp(-log_temperature) / SCALE
        return total / jnp.sum(weights) - prior * log_density

    return of_batch


def task_temperature(source: Thermometer, params: Params, states: HiddenStates) -> float:
    """Returns the temperature of a task from all its inputs, without labels; summed in float64."""
    inverse: Any = jax.jit(source.inverse)

    def inverses(batch: TokenBatch) -> Array:
        return inverse(params, batch.hidden)

    total, count = 0.0, 0.0
    for batch, values in one_behind(inverses, states.token_batches(2**14)):
        total += float(np.asarray(values, np.float64) @ batch.weights)
        count += float(batch.weights.sum())
    return count / total
