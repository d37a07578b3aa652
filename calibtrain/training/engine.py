"""What advances runs: the training step compiled for the devices at hand, and where states live.

Replicas, runs that differ in their seed alone, are advanced together: one after the other by one
program, which is what a CPU does best and gives each the very bits it has alone; or side by side
(`stacked_replicas`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import optax
from jaxtyping import Array

from calibtrain.data.batches.stream import Batch
from calibtrain.parallel.mesh import Layout, make_layout
from calibtrain.runs import checkpoint
from calibtrain.training.plan import Plan
from calibtrain.training.program import asked_flags, device_memory, initialiser, lower_step
from calibtrain.training.stacked_replicas import StackedEngine
from calibtrain.training.state import TrainState

Figures = list[dict[str, float]]
"""Numbers by name, one mapping per replica."""


class Engine(Protocol):
    """What the loop asks for; it does not look into the states, which are those of all replicas.

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

    def advance(self, states: Any, batch: Any, ask: int) -> tuple[Any, Any]:
        """One step: states and metrics. Several hosts find in "asked" the largest `ask` of any."""

    def figures(self, metrics: Any) -> Figures:
        """Metrics as numbers; waits for the device."""

    def running(self, states: Any) -> Figures:
        """The running sums of training metrics."""

    def replica(self, states: Any, index: int) -> TrainState:
        """The state of one replica."""


def make_engine(plans: Sequence[Plan], optimizer: optax.GradientTransformation) -> Engine:
    """Compiles the step of runs that differ in their seed alone, for the devices at hand.

    Raises:
        UserError: where the devices, replicas or rows cannot be divided as asked.
    """
    config, replicas = plans[0].config, len(plans)
    mesh = config.mesh
    if mesh.replica is not None:  # at most: a group may be smaller than was asked for
        mesh = mesh.model_copy(update={"replica": math.gcd(mesh.replica, replicas)})
    layout = make_layout(mesh, config.batch.rows, config.batch.cuts, replicas=replicas)
    on_cpu = layout.platform == "cpu"
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
        self._begin = initialiser(plans[0], optimizer, layout, self.shapes)
        self._compiled = lowered.compile()
        self.memory = device_memory(plans[0], layout, self.shapes, self._compiled)

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
        self, states: Sequence[TrainState], batch: Sequence[Batch], ask: int
    ) -> tuple[tuple[TrainState, ...], tuple[dict[str, Array], ...]]:
        flags = asked_flags(self.layout, ask)
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
