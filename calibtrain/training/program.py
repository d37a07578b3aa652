"""The training step as a compiled program: for one device, for many, for stacked replicas."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from calibtrain.data.batches.stream import Batch
from calibtrain.models import Network
from calibtrain.parallel import hosts
from calibtrain.parallel.mesh import AXES, Layout
from calibtrain.readout.chunks import default_chunk
from calibtrain.training.coupled import default_micro_batches
from calibtrain.training.objective import Objective
from calibtrain.training.plan import Plan
from calibtrain.training.shared_gradient import make_gradient
from calibtrain.training.state import TrainState, initial_state
from calibtrain.training.step import StepResult, make_train_step


def lower_step(
    plan: Plan,
    network: Network,
    optimizer: optax.GradientTransformation,
    layout: Layout,
    *,
    replicas: int | None = None,
    chunk: int | None = None,
) -> tuple[Any, TrainState]:
    """Returns the step, ready to be compiled for a layout, and the shapes of its state.

    Args:
        plan: the run.
        network: its own, or the same with what another platform needs.
        optimizer: of the run.
        layout: of devices at hand, or of a topology.
        replicas: how many are stacked along a leading axis; None means no such axis.
        chunk: tokens whose logits are held at once, over the replicas of a device.
    """
    config = plan.config
    if replicas is not None:
        network = network.mapped()
        platform = layout.platform
        together = replicas // layout.replica_shares
        chunk = max(1, (chunk or default_chunk(plan.tokenizer.vocab_size, platform)) // together)
    objective = plan.objective
    gradient = make_gradient(
        network,
        objective,
        accumulate=_micro_batches(plan, layout),
        layout=layout,
        chunk=chunk,
    )
    step = make_train_step(
        network, optimizer, objective=objective, gradient=gradient, log_every=config.log_every
    )
    shapes = state_shapes(network, optimizer, layout, objective, replicas)
    rows: tuple[int, ...] = (config.batch.rows, plan.batches.context)
    place: Any = layout.rows
    if replicas is not None:
        step = for_replicas(step, "replica" if layout.devices > 1 else None)
        rows, place = (replicas, *rows), layout.replicated_rows

    def step_with_flags(state: TrainState, batch: Batch, flags: Array) -> StepResult:
        state, metrics = step(state, batch)
        return state, {**metrics, "asked": jnp.max(flags)}

    if _is_local(layout):
        jitted = jax.jit(step, donate_argnums=0)
        place = None
    else:
        function = step_with_flags if hosts.are_many() else step
        # one process sees what all replicas' devices have; several must be told
        alone = replicas is not None and not hosts.are_many()
        metrics = layout.sharding(P("replica")) if alone else layout.everywhere
        jitted = jax.jit(function, donate_argnums=0, out_shardings=(shardings(shapes), metrics))
    integers = jax.ShapeDtypeStruct(rows, jnp.int32, sharding=place)
    weights = jax.ShapeDtypeStruct(rows, jnp.float32, sharding=place)
    batch = Batch(integers, integers, integers, weights)
    if getattr(plan.batches, "reference", None) is not None:
        reference = jax.ShapeDtypeStruct(rows[:-1], jnp.float32, sharding=place)
        batch = batch._replace(reference=reference)
    arguments: list[Any] = [shapes, batch]
    if hosts.are_many():
        flags = layout.sharding(P(AXES))
        arguments.append(jax.ShapeDtypeStruct((layout.devices,), jnp.int32, sharding=flags))
    return jitted.lower(*arguments), shapes


def for_replicas(
    step: Callable[[TrainState, Batch], StepResult], axis: str | None = None
) -> Callable[[TrainState, Batch], StepResult]:
    """Returns the step of several replicas at once, whose arrays have a leading axis of replicas.

    Args:
        step: the step of one replica, whose network is `Network.mapped`.
        axis: the mesh axis that the replicas are divided over, if there is one.
    """
    return jax.vmap(step, spmd_axis_name=axis)


def _is_local(layout: Layout) -> bool:
    """Whether the layout is one device of this process, for which nothing needs placing."""
    return layout.devices == 1 and layout.mesh.devices.item() in jax.local_devices()


def state_shapes(
    network: Network,
    optimizer: optax.GradientTransformation,
    layout: Layout,
    objective: Objective | None = None,
    replicas: int | None = None,
) -> TrainState:
    """Shapes of a state, or of stacked ones, with the sharding of each array."""
    shapes = jax.eval_shape(lambda: initial_state(network, optimizer, 0, objective))
    if replicas is not None:
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((replicas, *leaf.shape), leaf.dtype), shapes
        )
    if _is_local(layout):
        return shapes
    place = layout.state_shardings if replicas is None else layout.replicated_state_shardings
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        place(shapes),
    )


def shardings(shapes: Any) -> Any:
    """The sharding of each array of a tree of shapes."""
    return jax.tree.map(lambda leaf: leaf.sharding, shapes)


def initialiser(
    plan: Plan, optimizer: optax.GradientTransformation, layout: Layout, shapes: TrainState
) -> Any:
    """Returns the function seed -> state before the first step."""
    places = None if _is_local(layout) else shardings(shapes)
    make = functools.partial(initial_state, plan.network, optimizer, objective=plan.objective)
    if plan.start is None:
        return jax.jit(make, out_shardings=places)
    start = plan.start
    begin = jax.jit(lambda seed, params: make(seed, params=params), out_shardings=places)
    # as arrays of the host, which belong to no device yet
    return lambda seed: begin(seed, jax.tree.map(np.asarray, start()))


def asked_flags(layout: Layout, ask: int) -> tuple[Array, ...]:
    """The argument by which a host asks something of all; a single host needs none."""
    if not hosts.are_many():
        return ()
    return (
        jax.make_array_from_process_local_data(
            layout.sharding(P(AXES)),
            np.full(len(layout.mesh.local_devices), ask, np.int32),
            (layout.devices,),
        ),
    )


def _micro_batches(plan: Plan, layout: Layout) -> int:
    """How many pieces a device's rows are cut into."""
    asked = plan.config.batch.accumulate
    if asked != "auto":
        return asked
    rows = plan.config.batch.rows // layout.row_shares
    platform = layout.platform
    return default_micro_batches(
        rows, plan.batches.context, platform, plan.objective, layout.row_shares
    )


def device_memory(plan: Plan, layout: Layout, shapes: TrainState, compiled: Any) -> dict[str, int]:
    """Bytes that a device needs, by what they are for."""
    analysis: Any = compiled.memory_analysis()
    slots = plan.config.batch.rows * plan.batches.context // layout.row_shares
    return {
        "parameters": _device_bytes(shapes.params),
        "optimizer": _device_bytes(shapes.opt_state),
        "peak_temporary": int(analysis.temp_size_in_bytes),
        "logits": slots * plan.tokenizer.vocab_size * 4,
    }


def _device_bytes(tree: Any) -> int:
    """Bytes of a tree on one device."""

    def one(leaf: Any) -> int:
        shape = leaf.sharding.shard_shape(leaf.shape) if leaf.sharding else leaf.shape
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(map(one, jax.tree.leaves(tree)))
