"""Language models as pure functions: parameters in, hidden states and unembedding out.

A model is written as a Flax NNX module and used as a `Network`: its graph definition closed over,
its parameters a plain nested dict of float32 arrays, so that `jax.jit` sees flat leaves.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from calibtrain.config import ModelConfig
from calibtrain.models.adapter import LowRank
from calibtrain.models.lstm import LSTM
from calibtrain.models.temperature_head import Params, TemperatureHead
from calibtrain.models.transformer import Transformer

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int


TEMPERATURE = "temperature"
"""Key of a temperature head's parameters among a network's."""
ADAPTER = "adapter"
"""Key of the parameters of low-rank adapters."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A model without its parameters.

    Attributes:
        config: the architecture.
        vocab_size: number of real vocabulary entries.
        head: what divides the logits, if anything does; its parameters are `params[TEMPERATURE]`.
        adapter: what is added to the layers' matrices, if anything is; its parameters are
            `params[ADAPTER]`.
    """

    config: ModelConfig
    vocab_size: int
    _graph: Any = dataclasses.field(repr=False)
    head: TemperatureHead | None = None
    adapter: LowRank | None = None

    def mapped(self) -> Network:
        """Returns this network, to be traced under `jax.vmap` over parameters and rows."""
        head = None if self.head is None else self.head.mapped()
        graph = _graph_of(self.config, self.vocab_size, mapped=True)
        return dataclasses.replace(self, _graph=graph, head=head)

    @property
    def reading(self) -> dict[str, Any]:
        """Arguments of the functions of `readout` that depend on the model."""
        return {"vocab_size": self.vocab_size, "soft_cap": self.config.logit_soft_cap}

    def init(self, key: Array) -> Params:
        """Returns fresh float32 parameters; a head leaves those of the model as they are."""
        module = _module(self.config, self.vocab_size, nnx.Rngs(key))
        params = nnx.to_pure_dict(nnx.state(module, nnx.Param))
        if self.adapter is not None:
            params[ADAPTER] = self.adapter.init(jax.random.fold_in(key, 2), params)
        if self.head is not None:
            params[TEMPERATURE] = self.head.init(jax.random.fold_in(key, 1))
        return params

    def apply(
        self,
        params: Params,
        tokens: Int[Array, "batch time"],
        segments: Int[Array, "batch time"],
    ) -> tuple[
        Float[Array, "batch time width"],
        Float[Array, "width vocab"],
        Float[Array, "batch time"] | None,
    ]:
        """Returns hidden states, unembedding and temperature (None without a head) for `readout`.

        Args:
            params: from `init`.
            tokens: input ids.
            segments: number of the document, within its row, that each token belongs to.
        """
        module = self.module(params)
        hidden, unembedding = module(tokens, segments), module.vocabulary.columns()
        if self.head is None:
            return hidden, unembedding, None
        return self.head.apply(params[TEMPERATURE], hidden, unembedding, segments)

    def unembedding(self, params: Params) -> Float[Array, "width vocab"]:
        """Returns the unembedding alone, as `apply` does."""
        columns = self.module(params).vocabulary.columns()
        return columns if self.head is None else self.head.columns(params[TEMPERATURE], columns)

    def module(self, params: Params) -> Any:
        """The NNX module with these parameters, those of an adapter merged into its matrices."""
        body = {n: part for n, part in params.items() if n not in (TEMPERATURE, ADAPTER)}
        if self.adapter is not None:
            body = self.adapter.merged(body, params[ADAPTER])
        return nnx.merge(self._graph, nnx.State(body))


def build(config: ModelConfig, vocab_size: int) -> Network:
    """Returns the network of a configuration, without a head (`temperature.tempered` adds one)."""
    return Network(config, vocab_size, _graph_of(config, vocab_size))


def _graph_of(config: ModelConfig, vocab_size: int, *, mapped: bool = False) -> Any:
    return nnx.graphdef(nnx.eval_shape(lambda: _module(config, vocab_size, nnx.Rngs(0), mapped)))


def compute_dtype(config: ModelConfig) -> jnp.dtype:
    """Returns the type that layers compute in: bfloat16 on accelerators, float32 on the CPU."""
    if config.compute == "auto":
        return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16)
    return jnp.dtype(config.compute)


def _module(config: ModelConfig, vocab_size: int, rngs: nnx.Rngs, mapped: bool = False) -> Any:
    if config.kind == "lstm":
        return LSTM(config, vocab_size, compute_dtype(config), rngs=rngs)
    return Transformer(config, vocab_size, compute_dtype(config), mapped=mapped, rngs=rngs)
