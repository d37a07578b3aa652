"""One training step, top to bottom: micro-batches, loss, gradient, update, running sums.

What is a sum over tokens is taken a micro-batch and a device at a time. What couples tokens (the
batch terms of the objective) is a function of a few statistics a token: those are gathered from all
devices, and with several micro-batches from all of them before any gradient is taken, so that its
value and its gradient do not depend on how a batch is cut.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import PartitionSpec as P

from calibtrain.data.batches import Batch
from calibtrain.losses.preference import REFERENCE
from calibtrain.models import ADAPTER, Network, Params
from calibtrain.models.attention import over_replicas
from calibtrain.parallel.mesh import ROWS, Layout, gather, sum_and_scatter
from calibtrain.readout import Pull, TokenStats, accumulate, additive_loss
from calibtrain.training.objective import Coupled, LossState, Objective
from calibtrain.training.state import TrainState

FIELDS = ("nll", "log_confidence", "correct")

StepResult = tuple[TrainState, dict[str, Array]]

Sums = dict[str, Any]
"""What adds up over micro-batches and devices, beside the gradient."""

Outlook = tuple[Any, Any, Any]
"""What a network says of a batch: hidden states, unembedding, temperature."""

Seen = list[tuple[TokenStats, Array]]
"""Statistics and weights of the tokens that batch terms look at, one for each `Coupled`."""


LEAST_MICRO_BATCH = {"cpu": 640}
"""Tokens of a micro-batch, at least, where cutting a batch pays: a CPU then finds more of its
temporaries in its caches, and the kernel has fewer new pages to clear."""


def default_micro_batches(rows: int, context: int, platform: str, objective: Objective) -> int:
    """Pieces that rows of one device are cut into on a platform when a caller does not say."""
    if platform not in LEAST_MICRO_BATCH or objective.batch_terms:  # they would take a pass more
        return 1
    least = LEAST_MICRO_BATCH[platform]
    return max(
        pieces
        for pieces in range(1, rows + 1)
        if rows % pieces == 0 and (pieces == 1 or rows // pieces * context >= least)
    )


def make_train_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    objective: Objective | None = None,
    accumulate: int = 1,
    log_every: int = 1,
    layout: Layout | None = None,
    fields: tuple[str, ...] = FIELDS,
    chunk: int | None = None,
) -> Callable[[TrainState, Batch], StepResult]:
    """The pure function (state, batch) -> (state, metrics of this step).

    The loss is normalised by the weights of the whole batch, so that the number of micro-batches
    or of devices does not change it.

    Args:
        network: the model.
        optimizer: from `make_optimizer`.
        objective: what is minimised; default cross entropy.
        accumulate: micro-batches a step.
        log_every: the running sums start anew after every so many steps.
        layout: of the devices that share the work; none, or one device: no collectives at all.
        fields: statistics computed beside those that the objective reads.
        chunk: tokens whose logits are held at once.
    """
    objective = objective or Objective()
    shares = layout.row_shares if layout is not None and layout.devices > 1 else 1
    loss = _Loss(network, objective, fields, chunk, shares, accumulate)

    def shared_gradient(
        params: Params, batch: Batch, step: Array, memory: LossState
    ) -> tuple[Params, Sums]:
        if layout is None or layout.devices == 1:
            return loss.gradient(params, batch, step, memory)
        specs = layout.state_specs(params)

        def on_device(
            held: Params, batch: Batch, step: Array, memory: LossState
        ) -> tuple[Params, Sums]:
            grads, sums = loss.gradient(gather(held, specs), batch, step, memory)
            return sum_and_scatter(grads, specs), jax.lax.psum(sums, ROWS)

        run = layout.on_each_device(on_device, (specs, P(ROWS), P(), P()), (specs, P()))
        return run(params, batch, step, memory)

    def step(state: TrainState, batch: Batch) -> StepResult:
        grads, sums = shared_gradient(state.params, batch, state.step, state.loss_state)
        counts = sums.pop("counts")
        grads = jax.tree.map(lambda g: g / sums["weight"], grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        fresh = state.step % log_every == 0
        running = {name: jnp.where(fresh, 0.0, state.running[name]) + sums[name] for name in sums}
        metrics = {
            "loss": sums["loss"] / sums["weight"],
            # of what is trained: adapters alone, where a network has some
            "gradient_norm": optax.tree.norm(grads[ADAPTER] if network.adapter else grads),
        }
        memory = objective.advanced(state.loss_state, counts, state.step)
        return TrainState(state.step + 1, params, opt_state, running, memory), metrics

    return step


def for_replicas(
    step: Callable[[TrainState, Batch], StepResult], axis: str | None = None
) -> Callable[[TrainState, Batch], StepResult]:
    """A step of several replicas at once, whose states and batches have a leading axis.

    Args:
        step: of one.
        axis: of the mesh, which shares out the replicas, if there is one.
    """
    mapped = jax.vmap(step, spmd_axis_name=axis)

    def together(states: TrainState, batches: Batch) -> StepResult:
        with over_replicas():
            return mapped(states, batches)

    return together


@dataclasses.dataclass(frozen=True)
class _Loss:
    """The objective, and how a batch is cut.

    Attributes:
        network: the model.
        objective: what is minimised.
        fields: statistics computed beside those that it reads.
        chunk: tokens whose logits are held at once.
        shares: devices that hold a part of the batch's rows each.
        micro_batches: that a device's rows are cut into.
    """

    network: Network
    objective: Objective
    fields: tuple[str, ...]
    chunk: int | None
    shares: int
    micro_batches: int

    def gradient(
        self, params: Params, batch: Batch, step: Array, memory: LossState
    ) -> tuple[Params, Sums]:
        """Gradient of the loss times the batch's weight, and sums, over this device's rows."""
        weight = jnp.sum(batch.weights)
        if self.shares > 1 and self.objective.batch_terms:
            weight = jax.lax.psum(weight, ROWS)
        if self.micro_batches == 1:

            def at_once(params: Params) -> tuple[Array, Sums]:
                outlook = self._outlook(params, batch)
                slopes, coupled, more = self._slopes(self._seen(outlook, batch, step), weight, step)
                total, sums = self._read(outlook, batch, step, memory, slopes)
                return total, self._with(sums, coupled, more)

            return jax.grad(at_once, has_aux=True)(params)
        micro = jax.tree.map(lambda x: x.reshape(self.micro_batches, -1, *x.shape[1:]), batch)
        slopes, coupled, more = self._slopes(self._seen_in(params, micro, step), weight, step)

        def one(params: Params, part: tuple[Batch, Seen]) -> tuple[Array, Sums]:
            return self._read(self._outlook(params, part[0]), part[0], step, memory, part[1])

        gradient = jax.grad(one, has_aux=True)

        def add(total: Any, part: tuple[Batch, Seen]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient(params, part)), None

        shapes = jax.eval_shape(gradient, params, jax.tree.map(lambda x: x[0], (micro, slopes)))
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        grads, sums = jax.lax.scan(add, nothing, (micro, slopes))[0]
        return grads, self._with(sums, coupled, more)

    def _outlook(self, params: Params, batch: Batch) -> Outlook:
        return self.network.apply(params, batch.tokens, batch.segments)

    def _read(
        self, outlook: Outlook, batch: Batch, step: Array, memory: LossState, slopes: Seen
    ) -> tuple[Array, Sums]:
        """Token terms, summed, with the gradient of the batch terms besides; and sums."""
        hidden, unembedding, temperature = outlook
        bound = self.objective.bound(memory)
        coupled = self.objective.coupled
        pulls = [self._pull(*part, batch, step) for part in zip(coupled, slopes, strict=True)]
        fields = [field for part in coupled for field in part.fields]
        functionals = bound.functionals
        for part in coupled:
            functionals |= part.functionals
        total, stats = additive_loss(
            hidden,
            unembedding,
            batch.labels,
            batch.weights,
            lambda stats: bound.per_token(stats, step),
            temperature=temperature,
            **self.network.reading,
            fields=tuple(dict.fromkeys((*FIELDS, *self.fields, *bound.fields, *fields))),
            functionals=functionals,
            chunk=self.chunk,
            pulls=pulls,
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

    def _columns(self, part: Coupled, batch: Batch, step: Array) -> Array | None:
        """The places of every row that some batch terms look at; none: all."""
        rows, context = batch.labels.shape
        return part.columns(step, rows * self.shares * self.micro_batches, context)

    def _seen(self, outlook: Outlook, batch: Batch, step: Array) -> Seen:
        """Statistics of the tokens that batch terms are computed over; no gradient."""
        outlook = jax.lax.stop_gradient(outlook)
        return [self._look(part, outlook, batch, step) for part in self.objective.coupled]

    def _seen_in(self, params: Params, micro: Batch, step: Array) -> Seen:
        """The same of each micro-batch."""
        if not self.objective.batch_terms:
            return []

        def look(_: None, batch: Batch) -> tuple[None, Seen]:
            return None, self._seen(self._outlook(params, batch), batch, step)

        return jax.lax.scan(look, None, micro)[1]

    def _look(
        self, part: Coupled, outlook: Outlook, batch: Batch, step: Array
    ) -> tuple[TokenStats, Array]:
        hidden, unembedding, temperature = outlook
        columns = self._columns(part, batch, step)
        labels, weights = batch.labels, batch.weights
        if columns is not None:
            hidden, labels, weights, temperature = jax.tree.map(
                lambda x: jnp.take(x, columns, axis=1), (hidden, labels, weights, temperature)
            )
        sums, stats = accumulate(
            hidden,
            unembedding,
            labels,
            weights,
            part.reduction,
            temperature=temperature,
            **self.network.reading,
            fields=part.fields,
            functionals=part.functionals,
            chunk=self.chunk,
        )
        extra = stats.extra
        if batch.reference is not None:
            extra = {**extra, REFERENCE: batch.reference}
        return dataclasses.replace(stats, sums=sums, extra=extra), weights

    def _pull(
        self, part: Coupled, slopes: tuple[TokenStats, Array], batch: Batch, step: Array
    ) -> Pull:
        """The same as of all tokens: 0 of those that are not looked at."""
        stats, _ = slopes
        extra = {name: stats.extra[name] for name in part.functionals}
        stats, sums = dataclasses.replace(stats, extra=extra, sums={}), stats.sums
        columns, weights = self._columns(part, batch, step), batch.weights
        if columns is not None:
            stats = jax.tree.map(lambda x: jnp.zeros_like(weights).at[:, columns].set(x), stats)
            weights = jnp.zeros_like(weights).at[:, columns].set(weights[:, columns])
        reduction = part.reduction if sums else None
        return Pull(dataclasses.replace(stats, sums=sums), weights, reduction)

    def _coupled(self, seen: Seen, weight: Array, step: Array) -> tuple[Array, Sums]:
        """This device's share of the batch terms (times the batch's weight): weighted sum, each."""
        total: Any = 0.0
        each = {}
        for part, (stats, weights) in zip(self.objective.coupled, seen, strict=True):
            stats, weights = self._gathered(stats, weights)
            for term in part.terms:
                value = term.loss(stats, weights) * weight / self.shares
                total += term.weight_at(step) * value
                each[f"loss/{term.name}"] = value
        return total, each if self.objective.names else {}

    def _slopes(self, seen: Seen, weight: Array, step: Array) -> tuple[Seen, Array, Sums]:
        """Derivatives of the batch terms by what is seen; and their values."""
        if not self.objective.batch_terms:
            return [], jnp.zeros(()), {}

        def together(seen: Seen) -> tuple[Array, Sums]:
            if self.micro_batches > 1:
                seen = [_whole(*part) for part in seen]
            return self._coupled(seen, weight, step)

        (value, more), slopes = jax.value_and_grad(together, has_aux=True)(seen)
        return slopes, value, more

    def _gathered(self, stats: TokenStats, weights: Array) -> tuple[TokenStats, Array]:
        """The same of all devices, in the order of the rows."""
        if self.shares == 1:
            return stats, weights
        rows = jax.tree.map(
            lambda x: jax.lax.all_gather(x, ROWS, axis=0, tiled=True),
            (dataclasses.replace(stats, sums={}), weights),
        )
        return dataclasses.replace(rows[0], sums=jax.lax.psum(stats.sums, ROWS)), rows[1]

    def _with(self, sums: Sums, coupled: Array, more: Sums) -> Sums:
        if not self.objective.batch_terms:
            return sums
        return {**sums, "loss": sums["loss"] + coupled, **more}


def _whole(stats: TokenStats, weights: Array) -> tuple[TokenStats, Array]:
    """Micro-batches' statistics as one batch's: their rows one after another, their sums added."""
    rows = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]), (dataclasses.replace(stats, sums={}), weights)
    )
    sums = jax.tree.map(lambda x: jnp.sum(x, axis=0), stats.sums)
    return dataclasses.replace(rows[0], sums=sums), rows[1]
