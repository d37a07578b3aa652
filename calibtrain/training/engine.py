"""What advances runs: the training step compiled for the devices at hand, and where states live.

Replicas (runs that differ in their seed alone) are advanced together: one after the other by the
same program, which is what a CPU does best and gives each the very bits it has alone; or stacked,
in one program with a leading replica axis, which fills an accelerator and is divided over devices.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from calibtrain.data.batches.stream import Batch
from calibtrain.models import Network
from calibtrain.parallel import hosts
from calibtrain.parallel.mesh import AXES, Layout, make_layout
from calibtrain.readout.chunks import default_chunk
from calibtrain.runs import checkpoint
from calibtrain.training.coupled import default_micro_batches
from calibtrain.training.objective import Objective
from calibtrain.training.plan import Plan
from calibtrain.training.state import TrainState, initial_state
from calibtrain.training.step import StepResult, for_replicas, make_train_step

Figures = list[dict[str, float]]
"""Numbers by name, a mapping a replica."""


class Engine(Protocol):
    """What the loop asks for. The states of all replicas are one thing that it does not look into.

    Attributes:
        memory: bytes a device needs, by what they are for.
    """

    memory: dict[str, int]

    def begin(self) -> Any:
        """The states before the first step."""

    def restore(self, folders: Sequence[Path], step: int) -> Any:
        """The states of checkpoints, on these devices, whichever they were written on."""

    def batches(self, step: int) -> Iterator[Any]:
        """The batches from a step on; a host reads what its own devices compute."""

    def advance(self, states: Any, batch: Any, stop: bool) -> tuple[Any, Any]:
        """One step: states and metrics. `stop` tells every host that this one was asked to stop."""

    def figures(self, metrics: Any) -> Figures:
        """Metrics as numbers; waits for the device."""

    def running(self, states: Any) -> Figures:
        """The running sums of training metrics."""

    def replica(self, states: Any, index: int) -> TrainState:
        """The state of one replica."""


def make_engine(plans: Sequence[Plan], optimizer: optax.GradientTransformation) -> Engine:
    """Compile the step of runs that differ in their seed alone, for the devices at hand.

    Raises:
        UserError: where the devices, replicas or rows cannot be divided as asked.
    """
    config, replicas = plans[0].config, len(plans)
    mesh = config.mesh
    if mesh.replica is not None:  # at most: a group may be smaller than was asked for
        mesh = mesh.model_copy(update={"replica": math.gcd(mesh.replica, replicas)})
    layout = make_layout(mesh, config.batch.rows, config.batch.cuts, replicas=replicas)
    on_cpu = layout.mesh.devices.flat[0].platform == "cpu"
    # A CPU's cores are busy with one replica; and alone, each is what it is by itself, to the bit.
    if replicas == 1 or (on_cpu and layout.replica_shares == 1):
        return LoopedEngine(plans, optimizer, layout)
    return StackedEngine(plans, optimizer, layout)


class LoopedEngine:
    """Replicas one after the other; states, batches and metrics are tuples with one of each."""

    def __init__(
        self, plans: Sequence[Plan], optimizer: optax.GradientTransformation, layout: Layout
    ):
        self.plans, self.layout = plans, layout
        lowered, self.shapes = lower_step(plans[0], plans[0].network, optimizer, layout)
        self._begin = _initialiser(plans[0], optimizer, layout, self.shapes)
        self._compiled = lowered.compile()
        self.memory = _memory(plans[0], layout, self.shapes, self._compiled)

    def begin(self) -> tuple[TrainState, ...]:
        return tuple(self._begin(plan.config.seed) for plan in self.plans)

    def restore(self, folders: Sequence[Path], step: int) -> tuple[TrainState, ...]:
        return tuple(
            checkpoint.restore(folder, step, self.shapes, plan.identity)
            for plan, folder in zip(self.plans, folders, strict=True)
        )

    def batches(self, step: int) -> Iterator[tuple[Batch, ...]]:
        return zip(*(self._batches(plan, step) for plan in self.plans), strict=True)

    def _batches(self, plan: Plan, step: int) -> Iterator[Batch]:
        batches = plan.batches
        if self.layout.devices == 1:
            return batches.iterate(step)
        mine = batches.of_rows(self.layout.local_rows(batches.rows))
        return (self.layout.put_rows(batch, batches.rows) for batch in mine.iterate(step))

    def advance(
        self, states: Sequence[TrainState], batch: Sequence[Batch], stop: bool
    ) -> tuple[tuple[TrainState, ...], tuple[dict[str, Array], ...]]:
        flags = _flags(self.layout, stop)
        results = [
            self._compiled(state, part, *flags) for state, part in zip(states, batch, strict=True)
        ]
        return tuple(state for state, _ in results), tuple(metrics for _, metrics in results)

    def figures(self, metrics: Sequence[Mapping[str, Array]]) -> Figures:
        return [{name: float(value) for name, value in one.items()} for one in metrics]

    def running(self, states: Sequence[TrainState]) -> Figures:
        return self.figures([state.running for state in states])

    def replica(self, states: Sequence[TrainState], index: int) -> TrainState:
        return states[index]


class StackedEngine:
    """Replicas side by side: every array of states, batches and metrics has an axis of them."""

    def __init__(
        self, plans: Sequence[Plan], optimizer: optax.GradientTransformation, layout: Layout
    ):
        self.plans, self.layout = plans, layout
        network, replicas = plans[0].network, len(plans)
        lowered, shapes = lower_step(plans[0], network, optimizer, layout, replicas=replicas)
        self._compiled = lowered.compile()
        self.memory = _memory(plans[0], layout, shapes, self._compiled)
        # the state of one replica, as it is evaluated, saved and restored: no axis of replicas
        self.shapes = state_shapes(network, optimizer, layout, plans[0].objective)
        self._begin = _initialiser(plans[0], optimizer, layout, self.shapes)
        shared = layout.devices > 1
        self._stack = jax.jit(
            lambda *states: jax.tree.map(lambda *leaves: jnp.stack(leaves), *states),
            out_shardings=_shardings(shapes) if shared else None,
        )
        self._take = jax.jit(
            lambda states, index: jax.tree.map(
                lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), states
            ),
            out_shardings=_shardings(self.shapes) if shared else None,
        )

    def begin(self) -> TrainState:
        return self._stack(*(self._begin(plan.config.seed) for plan in self.plans))

    def restore(self, folders: Sequence[Path], step: int) -> TrainState:
        return self._stack(
            *(
                checkpoint.restore(folder, step, self.shapes, plan.identity)
                for plan, folder in zip(self.plans, folders, strict=True)
            )
        )

    def batches(self, step: int) -> Iterator[Batch]:
        replicas, rows = len(self.plans), self.plans[0].batches.rows
        if self.layout.devices == 1:
            mine, part = slice(0, replicas), slice(0, rows)
        else:
            mine, part = self.layout.local_replicas(replicas, rows)
        streams = [plan.batches.of_rows(part).iterate(step) for plan in self.plans[mine]]
        for parts in zip(*streams, strict=True):
            batch = jax.tree.map(lambda *arrays: np.stack(arrays), *parts)
            if self.layout.devices > 1:
                batch = self.layout.put_replicas(batch, replicas, rows)
            yield batch

    def advance(self, states: TrainState, batch: Batch, stop: bool) -> StepResult:
        return self._compiled(states, batch, *_flags(self.layout, stop))

    def figures(self, metrics: Mapping[str, Array]) -> Figures:
        replicas = len(self.plans)
        columns = {  # `stop` is one for all
            name: np.broadcast_to(_to_host(value), replicas) for name, value in metrics.items()
        }
        return [
            {name: float(values[index]) for name, values in columns.items()}
            for index in range(replicas)
        ]

    def running(self, states: TrainState) -> Figures:
        return self.figures(states.running)

    def replica(self, states: TrainState, index: int) -> TrainState:
        return self._take(states, index)


def lower_step(
    plan: Plan,
    network: Network,
    optimizer: optax.GradientTransformation,
    layout: Layout,
    *,
    replicas: int | None = None,
    chunk: int | None = None,
) -> tuple[Any, TrainState]:
    """The step, ready to be compiled for a layout; and the shapes of its state.

    Args:
        plan: the run.
        network: its own, or the same with what another platform needs.
        optimizer: of the run.
        layout: of devices at hand, or of a topology.
        replicas: stacked ones, in an axis before all others; none: no such axis.
        chunk: tokens whose logits are held at once, over the replicas of a device.
    """
    config = plan.config
    if replicas is not None:
        network = network.mapped()
        platform = layout.mesh.devices.flat[0].platform
        together = replicas // layout.replica_shares
        chunk = max(1, (chunk or default_chunk(plan.tokenizer.vocab_size, platform)) // together)
    step = make_train_step(
        network,
        optimizer,
        objective=plan.objective,
        accumulate=_micro_batches(plan, layout),
        log_every=config.log_every,
        layout=layout,
        chunk=chunk,
    )
    shapes = state_shapes(network, optimizer, layout, plan.objective, replicas)
    rows: tuple[int, ...] = (config.batch.rows, plan.batches.context)
    place: Any = layout.rows
    if replicas is not None:
        step = for_replicas(step, "replica" if layout.devices > 1 else None)
        rows, place = (replicas, *rows), layout.replicated_rows

    def step_with_stop(state: TrainState, batch: Batch, flags: Array) -> StepResult:
        state, metrics = step(state, batch)
        return state, {**metrics, "stop": jnp.max(flags)}

    if _is_local(layout):
        jitted = jax.jit(step, donate_argnums=0)
        place = None
    else:
        function = step_with_stop if hosts.are_many() else step
        # one process sees what all replicas' devices have; several must be told
        alone = replicas is not None and not hosts.are_many()
        metrics = layout.sharding(P("replica")) if alone else layout.everywhere
        jitted = jax.jit(function, donate_argnums=0, out_shardings=(_shardings(shapes), metrics))
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


def _shardings(shapes: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.sharding, shapes)


def _initialiser(
    plan: Plan, optimizer: optax.GradientTransformation, layout: Layout, shapes: TrainState
) -> Any:
    """Seed -> the state before the first step."""
    places = None if _is_local(layout) else _shardings(shapes)
    make = functools.partial(initial_state, plan.network, optimizer, objective=plan.objective)
    if plan.start is None:
        return jax.jit(make, out_shardings=places)
    start = plan.start
    begin = jax.jit(lambda seed, params: make(seed, params=params), out_shardings=places)
    # as arrays of the host, which belong to no device yet
    return lambda seed: begin(seed, jax.tree.map(np.asarray, start()))


def _flags(layout: Layout, stop: bool) -> tuple[Array, ...]:
    """The argument by which hosts agree to stop; none for a single host."""
    if not hosts.are_many():
        return ()
    return (
        jax.make_array_from_process_local_data(
            layout.sharding(P(AXES)),
            np.full(len(layout.mesh.local_devices), stop, np.int32),
            (layout.devices,),
        ),
    )


def _to_host(array: Array) -> np.ndarray:
    """All of an array, wherever its parts are; every host must come here."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def _micro_batches(plan: Plan, layout: Layout) -> int:
    """How many pieces a device's rows are cut into."""
    asked = plan.config.batch.accumulate
    if asked != "auto":
        return asked
    rows = plan.config.batch.rows // layout.row_shares
    platform = layout.mesh.devices.flat[0].platform
    return default_micro_batches(
        rows, plan.batches.context, platform, plan.objective, layout.row_shares
    )


def _memory(plan: Plan, layout: Layout, shapes: TrainState, compiled: Any) -> dict[str, int]:
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
