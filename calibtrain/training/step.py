"""One training step, top to bottom: micro-batches, loss, gradient, update, running sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import PartitionSpec as P

from calibtrain.data.batches import Batch
from calibtrain.losses import CrossEntropy
from calibtrain.models import Network, Params
from calibtrain.parallel.mesh import ROWS, Layout, gather, sum_and_scatter
from calibtrain.readout import additive_loss
from calibtrain.training.state import TrainState

FIELDS = ("nll", "log_confidence", "correct")

StepResult = tuple[TrainState, dict[str, Array]]


def make_train_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    loss: CrossEntropy | None = None,
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
        loss: a token loss; default cross entropy.
        accumulate: micro-batches a step.
        log_every: the running sums start anew after every so many steps.
        layout: of the devices that share the work; none, or one device: no collectives at all.
        fields: statistics computed beside those that the loss reads.
        chunk: tokens whose logits are held at once.
    """
    loss = loss or CrossEntropy()
    fields = tuple(dict.fromkeys((*FIELDS, *fields, *loss.fields)))

    def summed_loss(params: Params, batch: Batch) -> tuple[Array, dict[str, Array]]:
        hidden, unembedding, temperature = network.apply(params, batch.tokens, batch.segments)
        total, stats = additive_loss(
            hidden,
            unembedding,
            batch.labels,
            batch.weights,
            loss.per_token,
            temperature=temperature,
            vocab_size=network.vocab_size,
            soft_cap=network.config.logit_soft_cap,
            fields=fields,
            chunk=chunk,
        )
        sums = {
            "weight": jnp.sum(batch.weights),
            "loss": total,
            "confidence": jnp.sum(stats.confidence * batch.weights),
            "correct": jnp.sum(stats.correct * batch.weights),
        }
        return total, sums

    gradient = jax.grad(summed_loss, has_aux=True)

    def summed_gradient(params: Params, batch: Batch) -> tuple[Params, dict[str, Array]]:
        if accumulate == 1:
            return gradient(params, batch)
        micro = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
        first = gradient(params, jax.tree.map(lambda x: x[0], micro))
        rest = jax.tree.map(lambda x: x[1:], micro)

        def add(total: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient(params, part)), None

        return jax.lax.scan(add, first, rest)[0]

    def shared_gradient(params: Params, batch: Batch) -> tuple[Params, dict[str, Array]]:
        if layout is None or layout.devices == 1:
            return summed_gradient(params, batch)
        specs = layout.state_specs(params)

        def on_device(shares: Params, batch: Batch) -> tuple[Params, dict[str, Array]]:
            grads, sums = summed_gradient(gather(shares, specs), batch)
            return sum_and_scatter(grads, specs), jax.lax.psum(sums, ROWS)

        return layout.on_each_device(on_device, (specs, P(ROWS)), (specs, P()))(params, batch)

    def step(state: TrainState, batch: Batch) -> StepResult:
        grads, sums = shared_gradient(state.params, batch)
        grads = jax.tree.map(lambda g: g / sums["weight"], grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        fresh = state.step % log_every == 0
        running = {name: jnp.where(fresh, 0.0, state.running[name]) + sums[name] for name in sums}
        metrics = {
            "loss": sums["loss"] / sums["weight"],
            "gradient_norm": optax.tree.norm(grads),
        }
        return TrainState(state.step + 1, params, opt_state, running), metrics

    return step
