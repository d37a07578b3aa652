"""Vector scaling: logits diag(w) z + b, a factor and a bias a vocabulary entry (Guo et al. 2017).

Written as another unembedding, with a row for the biases that meets a 1 after the hidden state.
Unlike a temperature it may change which token is the most probable one.
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
"""The largest temperature that it starts from: as far as a global one goes by default."""


@dataclasses.dataclass(frozen=True)
class VectorHead:
    """See `models.Head`.

    Attributes:
        vocab_size: entries.
        name: of the kind.
    """

    vocab_size: int
    name: str = "vector"

    def mapped(self) -> VectorHead:
        """See `models.Head`."""
        return self

    def init(self, key: Array) -> Params:
        """See `models.Head`."""
        return {
            "scale": jnp.ones((self.vocab_size,), jnp.float32),
            "bias": jnp.zeros((self.vocab_size,), jnp.float32),
        }

    @property
    def reach(self) -> tuple[float, float]:
        """See `models.Head`."""
        return 1 / REACH, REACH

    def at(self, params: Params, temperature: float) -> Params:
        """See `models.Head`."""
        return {**params, "scale": jnp.full_like(params["scale"], 1 / temperature)}

    def apply(
        self,
        params: Params,
        hidden: Float[Array, "batch time width"],
        unembedding: Float[Array, "width vocab"],
        segments: Int[Array, "batch time"],
    ) -> tuple[Float[Array, "batch time width+1"], Float[Array, "width+1 vocab"], None]:
        """See `models.Head`."""
        return _with_one(hidden), self.columns(params, unembedding), None

    def columns(
        self, params: Params, unembedding: Float[Array, "width vocab"]
    ) -> Float[Array, "width+1 vocab"]:
        """See `models.Head`."""
        scaled = unembedding * params["scale"]
        return jnp.concatenate([scaled, params["bias"][None]]).astype(unembedding.dtype)

    def empty_cache(self, params: Params, rows: int, length: int, dtype: Any) -> None:
        """Nothing."""

    def decode(
        self,
        params: Params,
        cache: None,
        hidden: Float[Array, "rows width"],
        active: Bool[Array, " rows"],
    ) -> tuple[Float[Array, "rows width+1"], None, None]:
        """See `models.Head`."""
        return _with_one(hidden), None, None


def _with_one(hidden: Float[Array, "*tokens width"]) -> Float[Array, "*tokens width+1"]:
    return jnp.concatenate([hidden, jnp.ones((*hidden.shape[:-1], 1), hidden.dtype)], axis=-1)
