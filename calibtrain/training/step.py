"""One training step: loss and gradient, update, running sums; of one run or of replicas."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import PartitionSpec as P

from calibtrain.data.batches.stream import Batch
from calibtrain.models import ADAPTER, Network, Params
from calibtrain.parallel.mesh import ROWS, Layout, gather, sum_and_scatter
from calibtrain.training.coupled_gradient import CoupledGradient
from calibtrain.training.gradient import FIELDS, Sums, TokenGradient
from calibtrain.training.objective import LossState, Objective
from calibtrain.training.state import TrainState

StepResult = tuple[TrainState, dict[str, Array]]


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
    gradient: Callable[..., tuple[Params, Sums]]
    if objective.batch_terms:
        gradient = CoupledGradient(network, objective, fields, chunk, accumulate, shares)
    else:
        gradient = TokenGradient(network, objective, fields, chunk, accumulate)

    def shared_gradient(
        params: Params, batch: Batch, step: Array, memory: LossState
    ) -> tuple[Params, Sums]:
        if layout is None or layout.devices == 1:
            return gradient(params, batch, step, memory)
        specs = layout.state_specs(params)

        def on_device(
            held: Params, batch: Batch, step: Array, memory: LossState
        ) -> tuple[Params, Sums]:
            grads, sums = gradient(gather(held, specs), batch, step, memory)
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
        step: the step of one replica, whose network is `Network.mapped`.
        axis: the mesh axis that the replicas are divided over, if there is one.
    """
    return jax.vmap(step, spmd_axis_name=axis)
