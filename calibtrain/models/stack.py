"""Runs layers of one shape: written out or scanned, with activations kept or recomputed.

Neither choice changes what is computed (but for rounding) nor the parameters: a layer has its own
in either case, and a scan stacks them inside the step. So both may change when a run goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

UNROLLED_AT_MOST = 24
"""Layers that `auto` still writes out on an accelerator. A judgement, not a measurement: the
compiler's work grows with them, while a scan's copies cost about a fifth more memory."""

_KEPT = {
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


def choose_layers(platform: str, depth: int, remat: str) -> str:
    """Returns what `auto` means, "unrolled" or "scanned", on a platform ("cpu", "gpu", "tpu").

    A scan compiles one layer, whatever the depth, at the price of copies of parameters and
    activations; the optimizer's part of a step still names every parameter. Recomputation is worth
    its time in a scan only: of layers that are written out, the compilers for CPUs and GPUs keep
    most of what they were told to forget (benchmarks/README.md).
    """
    if remat != "none":
        return "scanned"
    return "unrolled" if platform == "cpu" or depth <= UNROLLED_AT_MOST else "scanned"


def run_layers(
    layers: Sequence[Any], x: Array, *context: Array, way: str = "unrolled", remat: str = "none"
) -> Array:
    """Computes `x = layer(x, *context)` for each layer, and returns the last x.

    Args:
        layers: NNX modules that differ in their parameters alone.
        x: input of the first; of the shape and type of what a layer returns.
        context: what every layer reads besides.
        way: `unrolled`, a program that names every layer; `scanned`, one loop over their stacked
            parameters; `auto`, what `choose_layers` says.
        remat: what the backward pass finds of a layer's activations: `none`, all of them; `dots`,
            the products of its linear maps; `full`, its input alone (Chen et al. 2016).
    """
    if way == "auto":
        way = choose_layers(jax.default_backend(), len(layers), remat)
    scanned = way == "scanned"
    graph = nnx.graphdef(layers[0])
    parameters = [nnx.to_pure_dict(nnx.state(layer)) for layer in layers]

    def run(x: Array, parameters: Any) -> Array:
        return nnx.merge(graph, nnx.State(parameters))(x, *context)

    if remat != "none":
        # within a scan, nothing can be merged with what another pass of the loop computes
        run = jax.checkpoint(run, policy=_KEPT[remat], prevent_cse=not scanned)
    if not scanned:
        for own in parameters:
            x = run(x, own)
        return x

    def stack(*arrays: Array) -> Array:
        whole = jnp.stack(arrays)  # matrices in the type in which the layers will read them
        return whole.astype(x.dtype) if arrays[0].ndim > 1 else whole

    stacked = jax.tree.map(stack, *parameters)
    return jax.lax.scan(lambda x, own: (run(x, own), None), x, stacked)[0]
