"""A training step, top to bottom: the loss of a batch, its gradient, the update, the logged sums.

A token loss is a sum over tokens, so its gradient is a sum over micro-batches. Two other gradients
can stand in its place: `coupled_gradient`, of losses that couple tokens, and `shared_gradient`, of
rows that devices share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from calibtrain.data.batches.stream import Batch
from calibtrain.models import ADAPTER, Network, Params
from calibtrain.readout import Cotangents, additive_loss
from calibtrain.training.objective import LossState, Objective
from calibtrain.training.state import TrainState

FIELDS = ("nll", "log_confidence", "correct")
"""Statistics that the running sums of a run read."""

Sums = dict[str, Any]
"""Sums over tokens, by name, that are added over micro-batches and devices."""

Gradient = Callable[[Params, Batch, Array, LossState], tuple[Params, Sums]]
"""Maps (parameters, rows, step, what the losses remember) to the gradient of the loss summed over
the tokens of those rows, and the sums that are logged."""

StepResult = tuple[TrainState, dict[str, Array]]


@dataclasses.dataclass(frozen=True)
class TokenGradient:
    """The gradient of an objective's token terms over the rows of one device.

    Attributes:
        network: the model.
        objective: what is minimised.
        fields: statistics whose weighted sums are wanted as well; none by default.
        chunk: tokens whose logits are held at once; None means a default for the platform.
        micro_batches: number of pieces that the rows are cut into.
    """

    network: Network
    objective: Objective
    fields: tuple[str, ...] = ()
    chunk: int | None = None
    micro_batches: int = 1

    def __call__(
        self, params: Params, batch: Batch, step: Array, memory: LossState
    ) -> tuple[Params, Sums]:
        """Returns the gradient of the loss summed over tokens, and the sums that are logged.

        Args:
            params: the network's parameters.
            batch: rows of this device.
            step: number of the step, from 0.
            memory: what the objective remembers of earlier steps.
        """

        def loss(params: Params, batch: Batch) -> tuple[Array, Sums]:
            states = self.network.apply(params, batch.tokens, batch.segments)
            return self.loss(states, batch, step, memory)

        if self.micro_batches == 1:
            return jax.grad(loss, has_aux=True)(params, batch)
        return summed_gradient(loss, params, micro_batches(batch, self.micro_batches))

    def loss(
        self,
        states: tuple[Any, Any, Any],
        batch: Batch,
        step: Array,
        memory: LossState,
        cotangents: Sequence[Cotangents] = (),
    ) -> tuple[Array, Sums]:
        """Returns the token terms summed over a batch, and the sums that are logged.

        Args:
            states: hidden states, unembedding and temperature, from `Network.apply`.
            batch: the rows that they belong to.
            step: number of the step, from 0.
            memory: what the objective remembers of earlier steps.
            cotangents: what losses that couple tokens add to the gradient, not to the sum.
        """
        hidden, unembedding, temperature = states
        bound = self.objective.bound(memory)
        total, stats = additive_loss(
            hidden,
            unembedding,
            batch.labels,
            batch.weights,
            lambda stats: bound.per_token(stats, step),
            temperature=temperature,
            **self.network.reading,
            fields=tuple(dict.fromkeys((*FIELDS, *self.fields, *bound.fields))),
            functionals=bound.functionals,
            chunk=self.chunk,
            cotangents=cotangents,
        )
        sums = {
            "weight": jnp.sum(batch.weights),
            "loss": total,
            "confidence": jnp.sum(stats.confidence * batch.weights),
            "correct": jnp.sum(stats.correct * batch.weights),
            "counts": bound.counted(stats, batch.weights),
            "asked": {
                f"sum/{name}": jnp.sum(getattr(stats, name) * batch.weights) for name in self.fields
            },
        }
        if not bound.is_cross_entropy:
            sums["nll"] = jnp.sum(stats.nll * batch.weights)
        if bound.names:
            for term in bound.token_terms:
                value = term.loss.per_token(stats)
                sums[f"loss/{term.name}"] = jnp.sum(value * batch.weights)
        return total, sums


def micro_batches(rows: Any, pieces: int) -> Any:
    """Cuts arrays into pieces of equally many rows: a new leading axis."""
    return jax.tree.map(lambda x: x.reshape(pieces, len(x) // pieces, *x.shape[1:]), rows)


def summed_gradient(loss: Any, params: Params, parts: Any, total: Any = None) -> Any:
    """Returns gradients, and the sums that come with them, added up over micro-batches.

    Args:
        loss: (params, micro-batch) -> (loss, sums).
        params: what the loss is differentiated with respect to.
        parts: micro-batches, along a leading axis.
        total: what the sum starts from; None means 0.
    """
    gradient = jax.grad(loss, has_aux=True)
    if total is None:  # zeros rather than the first, whose memory would be held as well
        shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], parts))
        total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, gradient(params, part)), None

    return jax.lax.scan(add, total, parts)[0]


def make_train_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    objective: Objective | None = None,
    gradient: Gradient | None = None,
    log_every: int = 1,
) -> Callable[[TrainState, Batch], StepResult]:
    """Returns the pure function (state, batch) -> (state, metrics of this step).

    The loss is divided by the weight of the whole batch, so that the number of micro-batches or of
    devices does not change it.

    Args:
        network: the model.
        optimizer: from `make_optimizer`.
        objective: what is minimised; cross entropy by default.
        gradient: of the objective; that of its token terms by default, in one piece.
        log_every: the running sums start anew after every so many steps.

    Raises:
        ValueError: for an objective that couples tokens and no gradient that does.
    """
    objective = objective or Objective()
    if objective.batch_terms and gradient is None:
        raise ValueError("losses that couple tokens need shared_gradient.make_gradient")
    summed = gradient or TokenGradient(network, objective)

    def step(state: TrainState, batch: Batch) -> StepResult:
        # the gradient of the mean loss
        grads, sums = summed(state.params, batch, state.step, state.loss_state)
        counts, asked = sums.pop("counts"), sums.pop("asked")
        grads = jax.tree.map(lambda g: g / sums["weight"], grads)
        # the update
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # what is logged
        fresh = state.step % log_every == 0
        running = {name: jnp.where(fresh, 0.0, state.running[name]) + sums[name] for name in sums}
        metrics = {
            "loss": sums["loss"] / sums["weight"],
            # of the adapters alone, where only they are trained
            "gradient_norm": optax.tree.norm(grads[ADAPTER] if network.adapter else grads),
            **asked,
        }
        memory = objective.advanced(state.loss_state, counts, state.step)
        return TrainState(state.step + 1, params, opt_state, running, memory), metrics

    return step
