"""A stacked LSTM with residual connections, which has the transformer's interface."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from calibtrain.config import ModelConfig
from calibtrain.models.layers import Linear, Vocabulary
from calibtrain.models.norm import RMSNorm
from calibtrain.models.stack import run_layers

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RecurrentState:
    """The state of sequences that an LSTM decodes, one sequence per row.

    Attributes:
        hidden: one array per layer.
        cell: likewise.
    """

    hidden: tuple[Float[Array, "rows width"], ...]
    cell: tuple[Float[Array, "rows width"], ...]


class LSTMLayer(nnx.Module):
    """One LSTM layer (Hochreiter & Schmidhuber 1997); forget gates start at bias 1.

    The inputs of all time steps are projected at once; only the recurrent product is sequential.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        width = config.width
        self.norm = RMSNorm(width, config.norm_epsilon)
        self.input = Linear(width, 4 * width, rngs=rngs)
        self.recurrent = Linear(width, 4 * width, rngs=rngs)
        self.bias = nnx.Param(jnp.zeros((4 * width,), jnp.float32).at[width : 2 * width].set(1.0))
        self.out = Linear(width, width, rngs=rngs, scale=(2 * config.depth) ** -0.5)

    def __call__(
        self, x: Float[Array, "batch time width"], continues: Bool[Array, "batch time"]
    ) -> Float[Array, "batch time width"]:
        recurrent = self.recurrent.kernel[...].astype(x.dtype)
        projected = self.project(x)

        def tick(carry: tuple[Array, Array], now: tuple[Array, Array]):
            hidden, cell = carry
            gates, keep = now
            keep = keep[:, None].astype(x.dtype)
            hidden, cell = hidden * keep, cell * keep  # a new document starts from nothing
            hidden, cell = _tick(gates + hidden @ recurrent, cell)
            return (hidden, cell), hidden

        start = jnp.zeros((x.shape[0], x.shape[2]), x.dtype)
        _, hidden = jax.lax.scan(
            tick, (start, start), (projected.swapaxes(0, 1), continues.swapaxes(0, 1))
        )
        return x + self.out(hidden.swapaxes(0, 1))

    def prefill(
        self, x: Float[Array, "batch time width"], active: Bool[Array, "batch time"]
    ) -> tuple[Float[Array, "batch time width"], Array, Array]:
        """Reads one document a row; returns the output and the state after the active tokens.

        The active tokens of a row are its first; what is returned of the others means nothing.
        """
        recurrent = self.recurrent.kernel[...].astype(x.dtype)

        def tick(carry: tuple[Array, Array], now: tuple[Array, Array]):
            gates, keep = now
            hidden, cell = _tick(gates + carry[0] @ recurrent, carry[1])
            hidden = jnp.where(keep[:, None], hidden, carry[0])
            cell = jnp.where(keep[:, None], cell, carry[1])
            return (hidden, cell), hidden

        start = jnp.zeros((x.shape[0], x.shape[2]), x.dtype)
        (last, cell), hidden = jax.lax.scan(
            tick, (start, start), (self.project(x).swapaxes(0, 1), active.swapaxes(0, 1))
        )
        return x + self.out(hidden.swapaxes(0, 1)), last, cell

    def project(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch gates"]:
        """Returns what the input contributes to the four gates."""
        return self.input(self.norm(x)) + self.bias[...].astype(x.dtype)

    def decode(
        self, x: Float[Array, "rows width"], hidden: Array, cell: Array
    ) -> tuple[Array, Array, Array]:
        """Reads the next token of each row; returns the output and the state after it."""
        hidden, cell = _tick(self.project(x) + self.recurrent(hidden), cell)
        return x + self.out(hidden), hidden, cell


def _tick(
    gates: Float[Array, "batch gates"], cell: Float[Array, "batch width"]
) -> tuple[Float[Array, "batch width"], Float[Array, "batch width"]]:
    take, forget, candidate, give = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(take) * jnp.tanh(candidate)
    return jax.nn.sigmoid(give) * jnp.tanh(cell), cell


class LSTM(nnx.Module):
    """Maps token ids to final hidden states; times `vocabulary.columns()`, those are the logits."""

    def __init__(self, config: ModelConfig, vocab_size: int, dtype: jnp.dtype, *, rngs: nnx.Rngs):
        self.way, self.remat = config.layers, config.remat
        self.vocabulary = Vocabulary(
            vocab_size,
            config.width,
            dtype,
            tied=config.tied,
            rngs=rngs,
            scaled=config.embedding_scale,
        )
        self.layers = nnx.List([LSTMLayer(config, rngs=rngs) for _ in range(config.depth)])
        self.final_norm = RMSNorm(config.width, config.norm_epsilon)

    def __call__(
        self, tokens: Int[Array, "batch time"], segments: Int[Array, "batch time"]
    ) -> Float[Array, "batch time width"]:
        """Returns hidden states after the final norm; each segment starts from an empty state."""
        x = self.vocabulary.embed(tokens)
        same = segments[:, 1:] == segments[:, :-1]
        continues = jnp.pad(same, ((0, 0), (1, 0)))
        x = run_layers(self.layers, x, continues, way=self.way, remat=self.remat)
        return self.final_norm(x)

    def empty_cache(self, rows: int, length: int) -> RecurrentState:
        """Returns the state before any token; an LSTM has no use for a length."""
        del length
        shape = (rows, self.final_norm.scale.shape[0])

        def nothing() -> tuple[Array, ...]:  # arrays of their own, so that they can be donated
            return tuple(jnp.zeros(shape, self.vocabulary.dtype) for _ in self.layers)

        return RecurrentState(nothing(), nothing())

    def prefill(
        self, tokens: Int[Array, "rows time"], counts: Int[Array, " rows"], length: int
    ) -> tuple[Float[Array, "rows time width"], RecurrentState]:
        """Reads the first tokens of rows in one pass, as `__call__` does (`decoding.prefill`)."""
        del length
        x = self.vocabulary.embed(tokens)
        active = jnp.arange(tokens.shape[1]) < counts[:, None]
        hidden, cell = [], []
        for layer in self.layers:
            x, last, last_cell = layer.prefill(x, active)
            hidden.append(last)
            cell.append(last_cell)
        return self.final_norm(x), RecurrentState(tuple(hidden), tuple(cell))

    def decode(
        self, cache: RecurrentState, tokens: Int[Array, " rows"], active: Bool[Array, " rows"]
    ) -> tuple[Float[Array, "rows width"], RecurrentState]:
        """Reads one more token of each row (`decoding.decode`)."""
        x = self.vocabulary.embed(tokens)
        hidden, cell = [], []
        for layer, before, cell_before in zip(self.layers, cache.hidden, cache.cell, strict=True):
            x, after, cell_after = layer.decode(x, before, cell_before)
            hidden.append(jnp.where(active[:, None], after, before))
            cell.append(jnp.where(active[:, None], cell_after, cell_before))
        return self.final_norm(x), RecurrentState(tuple(hidden), tuple(cell))
