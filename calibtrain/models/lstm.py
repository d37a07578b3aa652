"""A stacked LSTM with residual connections, of the same interface as the transformer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from calibtrain.config import ModelConfig
from calibtrain.models.layers import Linear, RMSNorm, Vocabulary
from calibtrain.models.stack import run_layers

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


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
        projected = self.input(self.norm(x)) + self.bias[...].astype(x.dtype)

        def tick(carry: tuple[Array, Array], now: tuple[Array, Array]):
            hidden, cell = carry
            gates, keep = now
            keep = keep[:, None].astype(x.dtype)
            hidden, cell = hidden * keep, cell * keep  # a new document starts from nothing
            take, forget, candidate, give = jnp.split(gates + hidden @ recurrent, 4, axis=-1)
            cell = jax.nn.sigmoid(forget) * cell + jax.nn.sigmoid(take) * jnp.tanh(candidate)
            hidden = jax.nn.sigmoid(give) * jnp.tanh(cell)
            return (hidden, cell), hidden

        start = jnp.zeros((x.shape[0], x.shape[2]), x.dtype)
        _, hidden = jax.lax.scan(
            tick, (start, start), (projected.swapaxes(0, 1), continues.swapaxes(0, 1))
        )
        return x + self.out(hidden.swapaxes(0, 1))


class LSTM(nnx.Module):
    """Token ids -> final hidden states; `vocabulary.columns()` turns those into logits."""

    def __init__(self, config: ModelConfig, vocab_size: int, dtype: jnp.dtype, *, rngs: nnx.Rngs):
        self.way, self.remat = config.layers, config.remat
        self.vocabulary = Vocabulary(vocab_size, config.width, dtype, tied=config.tied, rngs=rngs)
        self.layers = nnx.List([LSTMLayer(config, rngs=rngs) for _ in range(config.depth)])
        self.final_norm = RMSNorm(config.width, config.norm_epsilon)

    def __call__(
        self, tokens: Int[Array, "batch time"], segments: Int[Array, "batch time"]
    ) -> Float[Array, "batch time width"]:
        """Hidden states after the final norm; the state is reset where a new segment starts."""
        x = self.vocabulary.embed(tokens)
        same = segments[:, 1:] == segments[:, :-1]
        continues = jnp.pad(same, ((0, 0), (1, 0)))
        x = run_layers(self.layers, x, continues, way=self.way, remat=self.remat)
        return self.final_norm(x)
