"""The state of every token after every layer, read as the model reads the last one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array

from calibtrain.models import TEMPERATURE, Network, Params
from calibtrain.models.layers import rotary_angles, rotary_frequencies
from calibtrain.models.lstm import LSTM

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int


def layer_states(
    network: Network,
    params: Params,
    tokens: Int[Array, "batch time"],
    segments: Int[Array, "batch time"],
) -> tuple[
    Float[Array, "layers batch time inner"],
    Float[Array, "width vocab"],
    Float[Array, "layers batch time"] | None,
]:
    """Returns what `Network.apply` does, after each layer in the place of the last alone.

    The final norm follows each layer, and a temperature head reads its states, so that the last
    row is the model's own prediction.

    Args:
        network: the model.
        params: its parameters.
        tokens: input ids.
        segments: number of the document, within its row, that each token belongs to.
    """
    module = network.module(params)
    x = module.vocabulary.embed(tokens)
    context: tuple[Any, ...]
    if isinstance(module, LSTM):
        layers = module.layers
        context = (jnp.pad(segments[:, 1:] == segments[:, :-1], ((0, 0), (1, 0))),)
    else:
        layers = module.blocks
        frequencies = rotary_frequencies(module.head_size, module.rope_base, module.rope_scaling)
        context = (rotary_angles(tokens.shape[1], frequencies), segments)
    found = []
    for layer in layers:
        x = layer(x, *context)
        found.append(module.final_norm(x))
    states, columns = jnp.stack(found), module.vocabulary.columns()
    if network.head is None:
        return states, columns, None
    depth, rows, time = states.shape[:3]
    inner, columns, heat = network.head.apply(
        params[TEMPERATURE],
        states.reshape(depth * rows, time, -1),
        columns,
        jnp.tile(segments, (depth, 1)),
    )
    heat = None if heat is None else heat.reshape(depth, rows, time)
    return inner.reshape(depth, rows, time, -1), columns, heat
