"""The gradient that an objective and the devices at hand need: coupled or not, shared or not."""

from __future__ import annotations

import jax
from jax import Array
from jax.sharding import PartitionSpec as P

from calibtrain.data.batches.stream import Batch
from calibtrain.models import Network, Params
from calibtrain.parallel.mesh import ROWS, Layout, gather, sum_and_scatter
from calibtrain.training.coupled_gradient import CoupledGradient
from calibtrain.training.objective import LossState, Objective
from calibtrain.training.step import Gradient, Sums, TokenGradient


def make_gradient(
    network: Network,
    objective: Objective,
    *,
    accumulate: int = 1,
    layout: Layout | None = None,
    fields: tuple[str, ...] = (),
    chunk: int | None = None,
) -> Gradient:
    """Returns the gradient of an objective over the rows of a batch.

    Args:
        network: the model.
        objective: what is minimised.
        accumulate: number of micro-batches that the rows of a device are cut into.
        layout: of the devices that share the rows; None or one device means no collectives at all.
        fields: statistics whose sums over tokens are wanted as well, as metrics named "sum/...".
        chunk: tokens whose logits are held at once; None means a default for the platform.
    """
    shared = layout is not None and layout.devices > 1
    shares = layout.row_shares if layout is not None and shared else 1
    gradient: Gradient
    if objective.batch_terms:
        gradient = CoupledGradient(network, objective, fields, chunk, accumulate, shares)
    else:
        gradient = TokenGradient(network, objective, fields, chunk, accumulate)
    if layout is None or not shared:
        return gradient
    return over_devices(gradient, layout)


def over_devices(gradient: Gradient, layout: Layout) -> Gradient:
    """Returns the gradient over the rows of all devices, from that over the rows of each.

    Every device gathers the parameters, takes the gradient over its own rows, and keeps its share
    of the sum.
    """

    def shared(params: Params, batch: Batch, step: Array, memory: LossState) -> tuple[Params, Sums]:
        specs = layout.state_specs(params)

        def on_device(
            held: Params, batch: Batch, step: Array, memory: LossState
        ) -> tuple[Params, Sums]:
            grads, sums = gradient(gather(held, specs), batch, step, memory)
            return sum_and_scatter(grads, specs), jax.lax.psum(sums, ROWS)

        run = layout.on_each_device(on_device, (specs, P(ROWS), P(), P()), (specs, P()))
        return run(params, batch, step, memory)

    return shared
