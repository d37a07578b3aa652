"""Replicas side by side: one program trains them all, along a leading axis of their arrays.

It fills an accelerator that one small run would leave idle, and is divided over devices.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from calibtrain.data.batches.stream import Batch
from calibtrain.parallel.mesh import Layout
from calibtrain.runs import checkpoint
from calibtrain.training.plan import Plan
from calibtrain.training.program import (
    asked_flags,
    device_memory,
    initialiser,
    lower_step,
    shardings,
    state_shapes,
)
from calibtrain.training.state import TrainState
from calibtrain.training.step import StepResult


class StackedEngine:
    """As `engine.Engine`; every array of states, batches and metrics has an axis of replicas."""

    def __init__(
        self, plans: Sequence[Plan], optimizer: optax.GradientTransformation, layout: Layout
    ):
        self.plans, self.layout = plans, layout
        network, replicas = plans[0].network, len(plans)
        lowered, shapes = lower_step(plans[0], network, optimizer, layout, replicas=replicas)
        self._compiled = lowered.compile()
        self.memory = device_memory(plans[0], layout, shapes, self._compiled)
        # the state of one replica, as it is evaluated, saved and restored: no axis of replicas
        self.shapes = state_shapes(network, optimizer, layout, plans[0].objective)
        self._begin = initialiser(plans[0], optimizer, layout, self.shapes)
        shared = layout.devices > 1
        self._stack = jax.jit(
            lambda *states: jax.tree.map(lambda *leaves: jnp.stack(leaves), *states),
            out_shardings=shardings(shapes) if shared else None,
        )
        self._take = jax.jit(
            lambda states, index: jax.tree.map(
                lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), states
            ),
            out_shardings=shardings(self.shapes) if shared else None,
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

    def advance(self, states: TrainState, batch: Batch, ask: int) -> StepResult:
        return self._compiled(states, batch, *asked_flags(self.layout, ask))

    def figures(self, metrics: Mapping[str, Array]) -> list[dict[str, float]]:
        replicas = len(self.plans)
        columns = {  # `asked` is one for all
            name: np.broadcast_to(_to_host(value), replicas) for name, value in metrics.items()
        }
        return [
            {name: float(values[index]) for name, values in columns.items()}
            for index in range(replicas)
        ]

    def running(self, states: TrainState) -> list[dict[str, float]]:
        return self.figures(states.running)

    def replica(self, states: TrainState, index: int) -> TrainState:
        return self._take(states, index)


def _to_host(array: Array) -> np.ndarray:
    """All of an array, wherever its parts are; every host must come here."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
