"""Token losses that look at the shape of the whole predictive distribution."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.losses.loss import TokenLoss
from calibtrain.readout import Functional, TokenStats, first_largest, is_entry

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class EntropyPenalty(TokenLoss):
    """-log p_y - b H(p): confident predictions cost (Pereyra et al., ICLR workshop 2017).

    Attributes:
        beta: b >= 0.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll", "entropy")
    beta: float = 0.1

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Of each token."""
        return stats.nll - self.beta * stats.entropy


@dataclasses.dataclass(frozen=True)
class Brier(TokenLoss):
    """sum_v (p_v - [v = y])^2 = 1 - 2 p_y + sum_v p_v^2, in [0, 2]: proper (Brier 1950).

    No logarithm: a target of probability 0 costs 2 and no more, so that rare tokens are learned
    slowly.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll", "sum_squares")

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Of each token; no unit."""
        return 1 - 2 * jnp.exp(-stats.nll) + stats.sum_squares


@dataclasses.dataclass(frozen=True)
class MarginSmoothing(TokenLoss):
    """-log p_y + l mean_v relu(max z - z_v - m) (MbLS: Liu et al., CVPR 2022).

    Logits may lie up to m below the largest one for free.

    Attributes:
        strength: l >= 0.
        margin: m >= 0, in units of logits.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    strength: float = 0.1
    margin: float = 10.0

    @property
    def functionals(self) -> Mapping[str, Functional]:
        return {self._name: self._excess}

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Of each token."""
        return stats.nll + self.strength * stats.extra[self._name]

    @property
    def _name(self) -> str:
        return f"excess over a margin of {self.margin}"

    def _excess(
        self, logits: Float[Array, "tokens vocab"], labels: Int[Array, " tokens"]
    ) -> Float[Array, " tokens"]:
        return _below(self.margin, logits) / jnp.sum(is_entry(logits[:1]))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _below(margin: float, logits: Float[Array, "tokens vocab"]) -> Float[Array, " tokens"]:
    """sum_v relu(max z - z_v - m) over the entries."""
    top, _ = first_largest(logits)
    below = jax.nn.relu(top[:, None] - logits - margin)
    return _sum(jnp.where(is_entry(logits[:1]), below, 0.0))


@_below.defjvp
def _(margin: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # in one pass over the logits; what is derived from the maximum and relu takes several
    (logits,), (tangent,) = primals, tangents
    top, leader = first_largest(logits)
    leads = jnp.arange(logits.shape[-1]) == leader[:, None]
    pays = (is_entry(logits[:1]) & (top[:, None] - logits > margin)).astype(logits.dtype)
    slope = jnp.where(leads, _sum(pays)[:, None], -pays)
    return _below(margin, logits), jnp.sum(slope * tangent, axis=-1)


def _sum(rows: Float[Array, "tokens vocab"]) -> Float[Array, " tokens"]:
    """Sums of rows, as a product: on a CPU it takes half as long as a reduction."""
    return rows @ jnp.ones(rows.shape[-1], rows.dtype)


@dataclasses.dataclass(frozen=True)
class ZLoss(TokenLoss):
    """-log p_y + c (log Z)^2, log Z = logsumexp(z) (as in PaLM: Chowdhery et al. 2022).

    Keeps the normaliser near 1, which the softmax alone leaves free.

    Attributes:
        coefficient: c >= 0.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    coefficient: float = 1e-4

    @property
    def functionals(self) -> Mapping[str, Functional]:
        return {_LOG_NORMALIZER: lambda logits, labels: jax.nn.logsumexp(logits, axis=-1)}

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Of each token."""
        return stats.nll + self.coefficient * jnp.square(stats.extra[_LOG_NORMALIZER])


_LOG_NORMALIZER = "log normalizer"
