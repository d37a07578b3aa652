"""The gradient of the token losses over the rows of one device, a micro-batch at a time.

A token loss is a sum over tokens, so its gradient is a sum over micro-batches and over devices.
Losses that couple tokens are not such sums; `coupled_gradient` adds them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.data.batches.stream import Batch
from calibtrain.models import Network, Params
from calibtrain.readout import Cotangents, Functional, additive_loss
from calibtrain.training.objective import LossState, Objective

FIELDS = ("nll", "log_confidence", "correct")
"""Statistics that the running sums of a run read."""

Sums = dict[str, Any]
"""Sums over tokens, by name, that are added over micro-batches and devices."""


class Coupling(NamedTuple):
    """What losses that couple tokens add to the pass over a micro-batch's logits.

    Attributes:
        fields: statistics that they read.
        functionals: functionals of the logits that they read.
        cotangents: their derivatives with respect to those.
    """

    fields: tuple[str, ...] = ()
    functionals: dict[str, Functional] = {}  # noqa: RUF012 (never written to)
    cotangents: Sequence[Cotangents] = ()


@dataclasses.dataclass(frozen=True)
class TokenGradient:
    """The token terms of an objective, differentiated.

    Attributes:
        network: the model.
        objective: what is minimised.
        fields: statistics computed besides those that the objective reads.
        chunk: tokens whose logits are held at once; None means a default for the platform.
        micro_batches: number of pieces that the rows are cut into.
    """

    network: Network
    objective: Objective
    fields: tuple[str, ...]
    chunk: int | None
    micro_batches: int

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
        coupling: Coupling = Coupling(),  # noqa: B008 (immutable)
    ) -> tuple[Array, Sums]:
        """Returns the token terms summed over a batch, and the sums that are logged.

        Args:
            states: hidden states, unembedding and temperature, from `Network.apply`.
            batch: the rows that they belong to.
            step: number of the step, from 0.
            memory: what the objective remembers of earlier steps.
            coupling: what is added to the gradient, not to the sum.
        """
        hidden, unembedding, temperature = states
        bound = self.objective.bound(memory)
        wanted = (*FIELDS, *self.fields, *bound.fields, *coupling.fields)
        total, stats = additive_loss(
            hidden,
            unembedding,
            batch.labels,
            batch.weights,
            lambda stats: bound.per_token(stats, step),
            temperature=temperature,
            **self.network.reading,
            fields=tuple(dict.fromkeys(wanted)),
            functionals={**bound.functionals, **coupling.functionals},
            chunk=self.chunk,
            cotangents=coupling.cotangents,
        )
        sums = {
            "weight": jnp.sum(batch.weights),
            "loss": total,
            "confidence": jnp.sum(stats.confidence * batch.weights),
            "correct": jnp.sum(stats.correct * batch.weights),
            "counts": bound.counted(stats, batch.weights),
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
