"""Vector and matrix scaling: logits W z + b (Guo et al., ICML 2017), as another unembedding.

With z = h U, the logits W z + b are h (U W^T) + b: the columns U W^T, one more row with the biases,
and a 1 after each hidden state. Unlike a temperature, this may change which token is the most
probable one. W is a diagonal w, or a diagonal and a `Mixing` M of the entries.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array

from calibtrain.models import Params
from calibtrain.temperature.mixing import Mixing

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


REACH = 10.0
"""The largest temperature that a fit starts from: the default limit of a global one."""


@dataclasses.dataclass(frozen=True)
class AffineHead:
    """Maps the logits of each token to W z + b (a `models.TemperatureHead`).

    Attributes:
        vocab_size: number of entries.
        name: name of the kind.
        mixing: what W has beside its diagonal; None means nothing, which is vector scaling.
        off_diagonal_penalty: weight of the mean squared entry of W off its diagonal in a fit.
    """

    vocab_size: int
    name: str = "vector"
    mixing: Mixing | None = None
    off_diagonal_penalty: float = 0.0

    def mapped(self) -> AffineHead:
        """Returns this head, to be traced under `jax.vmap` over parameters and rows."""
        return self

    def init(self, key: Array) -> Params:
        """Returns fresh parameters, which leave the logits as they are: W = 1, b = 0."""
        return {
            "scale": jnp.ones((self.vocab_size,), jnp.float32),
            "bias": jnp.zeros((self.vocab_size,), jnp.float32),
            **({} if self.mixing is None else self.mixing.init(key)),
        }

    @property
    def reach(self) -> tuple[float, float]:
        """The lowest and the highest temperature that all tokens can be given."""
        return 1 / REACH, REACH

    def at(self, params: Params, temperature: float) -> Params:
        """Returns fresh parameters moved so that all tokens have a temperature."""
        return {**params, "scale": jnp.full_like(params["scale"], 1 / temperature)}

    def penalty(self, params: Params) -> Float[Array, ""] | float:
        """Returns what a fit adds to the mean loss, in nats (ODIR of Kull et al., NeurIPS 2019)."""
        if self.mixing is None or self.off_diagonal_penalty == 0:
            return 0.0
        return self.off_diagonal_penalty * self.mixing.mean_square(params)

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
        mapped = unembedding * params["scale"]
        if self.mixing is not None:
            mapped = mapped + self.mixing.mixed(params, unembedding)
        return jnp.concatenate([mapped, params["bias"][None]]).astype(unembedding.dtype)

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
