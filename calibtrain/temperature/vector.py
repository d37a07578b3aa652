"""Vector scaling: logits diag(w) z + b, with a factor and a bias per entry (Guo et al., ICML 2017).

It is another unembedding, whose last row holds the biases, and a 1 after each hidden state. Unlike
a temperature it may change which token is the most probable one.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array

from calibtrain.models import Params

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


REACH = 10.0
"""The largest temperature that a fit starts from: the default limit of a global one."""


@dataclasses.dataclass(frozen=True)
class VectorHead:
    """Scales and shifts the logit of each vocabulary entry (a `models.TemperatureHead`).

    Attributes:
        vocab_size: number of entries.
        name: name of the kind.
    """

    vocab_size: int
    name: str = "vector"

    def mapped(self) -> VectorHead:
        """Returns this head, to be traced under `jax.vmap` over parameters and rows."""
        return self

    def init(self, key: Array) -> Params:
        """Returns fresh parameters, which give T = 1."""
        return {
            "scale": jnp.ones((self.vocab_size,), jnp.float32),
            "bias": jnp.zeros((self.vocab_size,), jnp.float32),
        }

    @property
    def reach(self) -> tuple[float, float]:
        """The lowest and the highest temperature that all tokens can be given."""
        return 1 / REACH, REACH

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature."""
        return {**params, "scale": jnp.full_like(params["scale"], 1 / temperature)}

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        unembedding: Float[Array, "width vocab"],
        segments: Int[Array, "batch time"],
    ) -> tuple[Float[Array, "batch time width+1"], Float[Array, "width+1 vocab"], None]:
        """Returns hidden states, unembedding and temperatures for `readout`."""
        return _with_one(hidden), self.columns(params, unembedding), None

    def columns(
        self, params: Params, unembedding: Float[Array, "width vocab"]
    ) -> Float[Array, "width+1 vocab"]:
        """Returns the unembedding that `apply` returns."""
        scaled = unembedding * params["scale"]
        return jnp.concatenate([scaled, params["bias"][None]]).astype(unembedding.dtype)

    def empty_cache(self, params: Params, rows: int, length: int, dtype: Any) -> None:
        """Returns None: there is nothing to keep."""

    def prefill(
        self,
        params: Params,
        hidden: Float[Array, "rows time width"],
        counts: Int[Array, " rows"],
        length: int,
    ) -> tuple[Float[Array, "rows time width+1"], None, None]:
        """Returns hidden states and temperatures of the first tokens of rows, and the cache."""
        return _with_one(hidden), None, None

    def decode(
        self,
        params: Params,
        cache: None,
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Float[Array, "rows width+1"], None, None]:
        """Returns hidden state and temperature of one more token of each row, and the cache."""
        return _with_one(hidden), None, None


def _with_one(hidden: Float[Array, "*tokens width"]) -> Float[Array, "*tokens width+1"]:
    return jnp.concatenate([hidden, jnp.ones((*hidden.shape[:-1], 1), hidden.dtype)], axis=-1)
