"""Devices as a mesh, and the few partition specs of the project.

Axes: `replica` (independent runs, no communication), `data` (rows of the batch) and `fsdp` (rows
of the batch, and a share of every large array of the state). Every device runs the same program as
a single device, on its own rows: parameters are gathered before it, and gradients are summed and
scattered after it (ZeRO, Rajbhandari et al. 2020). What is fast on one device stays fast.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from calibtrain.config import MeshConfig
from calibtrain.errors import UserError

AXES = ("replica", "data", "fsdp")
ROWS = ("data", "fsdp")
"""The axes that share the rows of a batch."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where arrays live on a mesh."""

    mesh: Mesh

    @property
    def devices(self) -> int:
        """Number of devices of the mesh."""
        return self.mesh.size

    @property
    def platform(self) -> str:
        """Platform of the devices: "cpu", "gpu" or "tpu"."""
        return self.mesh.devices.flat[0].platform

    @property
    def row_shares(self) -> int:
        """Number of devices among which the rows of a batch are divided."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    @property
    def replica_shares(self) -> int:
        """Number of devices, or groups of them, among which replicas are divided."""
        return self.mesh.shape["replica"]

    @property
    def rows(self) -> NamedSharding:
        """Sharding of batches and of values per row."""
        return self.sharding(P(ROWS))

    @property
    def replicated_rows(self) -> NamedSharding:
        """Sharding of batches with a leading axis of replicas."""
        return self.sharding(P("replica", ROWS))

    @property
    def everywhere(self) -> NamedSharding:
        """Sharding of arrays that every device holds whole."""
        return self.sharding(P())

    def sharding(self, spec: P) -> NamedSharding:
        """Returns the sharding of a spec on this mesh."""
        return NamedSharding(self.mesh, spec)

    def state_specs(self, shapes: Any) -> Any:
        """Returns a spec for each array of a state: its largest divisible axis goes over `fsdp`."""
        return jax.tree.map(lambda leaf: self._spec(leaf.shape), shapes)

    def state_shardings(self, shapes: Any) -> Any:
        """Returns a sharding for each array of a state, as `state_specs` divides it."""
        return jax.tree.map(lambda leaf: self.sharding(self._spec(leaf.shape)), shapes)

    def replicated_state_shardings(self, shapes: Any) -> Any:
        """Returns shardings for states with a leading axis of replicas, divided over `replica`."""
        return jax.tree.map(
            lambda leaf: self.sharding(P("replica", *self._spec(leaf.shape[1:]))), shapes
        )

    def _spec(self, shape: Sequence[int]) -> P:
        shares = self.mesh.shape["fsdp"]
        fitting = [axis for axis, size in enumerate(shape) if size % shares == 0]
        if shares == 1 or len(shape) < 2 or not fitting:
            return P()
        largest = max(fitting, key=lambda axis: shape[axis])
        return P(*([None] * largest), "fsdp")

    def on_each_device(self, function: Callable[..., Any], inputs: Any, outputs: Any) -> Any:
        """Returns a function that runs `function` on every device's own parts, given by specs."""
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=inputs, out_specs=outputs, check_vma=False
        )

    def put_rows(self, tree: Any, rows: int) -> Any:
        """Returns arrays of all `rows` on the mesh, from host arrays with this process's rows."""
        return self._put(tree, self.rows, (rows,))

    def put_replicas(self, tree: Any, replicas: int, rows: int) -> Any:
        """Returns arrays of all replicas and rows, from host arrays with this process's own."""
        return self._put(tree, self.replicated_rows, (replicas, rows))

    def _put(self, tree: Any, sharding: NamedSharding, leading: tuple[int, ...]) -> Any:
        def one(x: Any) -> jax.Array:
            shape = (*leading, *x.shape[len(leading) :])
            return jax.make_array_from_process_local_data(sharding, np.asarray(x), shape)

        return jax.tree.map(one, tree)

    def share_out(self, tree: Any) -> Any:
        """Returns arrays divided by rows, from host arrays that every process has whole."""

        def one(x: np.ndarray) -> jax.Array:
            return jax.make_array_from_callback(x.shape, self.rows, lambda place: x[place])

        return jax.tree.map(one, tree)

    def local_rows(self, rows: int) -> slice:
        """Returns the rows of a batch that this process's devices compute."""
        return self._local(self.rows, (rows,))[0]

    def local_replicas(self, replicas: int, rows: int) -> tuple[slice, slice]:
        """Returns the replicas, and the rows of their batches, that this process computes."""
        mine, part = self._local(self.replicated_rows, (replicas, rows))
        return mine, part

    def _local(self, sharding: NamedSharding, shape: tuple[int, ...]) -> list[slice]:
        places = sharding.addressable_devices_indices_map(shape).values()
        local = []
        for axis, size in enumerate(shape):
            found = sorted({place[axis].indices(size)[:2] for place in places if place is not None})
            first, last = found[0][0], found[-1][1]
            if sum(stop - start for start, stop in found) != last - first:
                raise AssertionError("the rows of a process are not contiguous on this mesh")
            local.append(slice(first, last))
        return local


def gather(tree: Any, specs: Any) -> Any:
    """Returns whole arrays from their shares; for use inside `on_each_device`."""

    def one(array: Any, spec: P) -> Any:
        if not spec:
            return array
        return jax.lax.all_gather(array, "fsdp", axis=len(spec) - 1, tiled=True)

    return jax.tree.map(one, tree, specs)


def sum_and_scatter(tree: Any, specs: Any) -> Any:
    """Returns each device's share of the sum over devices; for use inside `on_each_device`."""

    def one(array: Any, spec: P) -> Any:
        if not spec:
            return jax.lax.psum(array, ROWS)
        share = jax.lax.psum_scatter(array, "fsdp", scatter_dimension=len(spec) - 1, tiled=True)
        return jax.lax.psum(share, "data")

    return jax.tree.map(one, tree, specs)


def make_layout(
    config: MeshConfig,
    rows: int,
    accumulate: int = 1,
    devices: Sequence[Any] | None = None,
    *,
    replicas: int = 1,
) -> Layout:
    """Returns the mesh of a configuration.

    Args:
        config: devices per axis. By default, `replica` gets as many as divide the replicas, and
            `data` gets the remaining ones.
        rows: rows of a batch.
        accumulate: micro-batches that the rows of a device are cut into.
        devices: devices of the mesh; None means all.
        replicas: runs that are trained together.

    Raises:
        UserError: where the devices, the replicas or the rows cannot be divided so.
    """
    devices = jax.devices() if devices is None else devices
    count = len(devices)
    replica = config.replica or math.gcd(
        replicas, max(1, count // (config.fsdp * (config.data or 1)))
    )
    if replicas % replica:
        raise UserError(
            f"mesh.replica: {replica} does not divide the replicas (train.replicas: {replicas})"
        )
    given = replica * config.fsdp
    data = config.data
    if data is None:
        if count % given:
            raise UserError(
                f"mesh: replica ({replica}) x fsdp ({config.fsdp}) does not divide the "
                f"{count} devices"
            )
        data = count // given
    if given * data != count:
        raise UserError(
            f"mesh: replica ({replica}) x data ({data}) x fsdp ({config.fsdp}) is "
            f"{given * data}, but there are {count} devices"
        )
    shares = data * config.fsdp
    if rows % (shares * accumulate):
        raise UserError(
            f"batch.rows: {rows} cannot be divided among {shares} devices in {accumulate} "
            f"micro-batch(es); take a multiple of {shares * accumulate}"
        )
    grid = np.asarray(devices).reshape(replica, data, config.fsdp)
    return Layout(Mesh(grid, AXES))
