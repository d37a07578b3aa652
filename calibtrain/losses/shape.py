"""Token losses that depend on the whole predictive distribution, not on the target's part alone."""

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
    """Entropy (confidence) penalty: -log p_y - b H(p), so that confident predictions cost more.

    Attributes:
        beta: b >= 0.

    Example:
        >>> stats = TokenStats(nll=jnp.array([0.7]), entropy=jnp.array([1.0]))
        >>> print(EntropyPenalty(beta=0.1).per_token(stats))
        [0.6]

    References:
        Pereyra et al., "Regularizing Neural Networks by Penalizing Confident Output Distributions",
        ICLR workshop 2017.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll", "entropy")
    beta: float = 0.1

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token, in nats."""
        return stats.nll - self.beta * stats.entropy


@dataclasses.dataclass(frozen=True)
class Brier(TokenLoss):
    """Brier score: sum_v (p_v - [v = y])^2 = 1 - 2 p_y + sum_v p_v^2, in [0, 2]. It is proper.

    There is no logarithm: a target of probability 0 costs 2 and no more, so that rare tokens are
    learned slowly.

    Example:
        >>> p = jnp.array([0.7, 0.2, 0.1])
        >>> stats = TokenStats(nll=-jnp.log(p[:1]), sum_squares=jnp.sum(p**2, keepdims=True))
        >>> print(Brier().per_token(stats))  # 0.3^2 + 0.2^2 + 0.1^2
        [0.14]

    References:
        Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review
        78, 1950.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll", "sum_squares")

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the score per token, without a unit."""
        return 1 - 2 * jnp.exp(-stats.nll) + stats.sum_squares


@dataclasses.dataclass(frozen=True)
class MarginSmoothing(TokenLoss):
    """Margin-based label smoothing (MbLS): -log p_y + l mean_v relu(max z - z_v - m).

    Logits up to m below the largest one cost nothing.

    Attributes:
        strength: l >= 0.
        margin: m >= 0, in units of logits.

    Example:
        >>> from calibtrain.readout import statistics
        >>> loss = MarginSmoothing(strength=0.1, margin=2.0)
        >>> logits, labels = jnp.array([[5.0, 4.0, 1.0]]), jnp.array([0])
        >>> stats = statistics(logits, labels, functionals=loss.functionals)
        >>> print(loss.per_token(stats) - stats.nll)  # 0.1 (5 - 1 - 2) / 3
        [0.0667]

    References:
        Liu et al., "The Devil is in the Margin: Margin-based Label Smoothing for Network
        Calibration", CVPR 2022.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    strength: float = 0.1
    margin: float = 10.0

    @property
    def functionals(self) -> Mapping[str, Functional]:
        return {self._name: self._excess}

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token, in nats."""
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
    """Returns sum_v relu(max z - z_v - m) over the entries of the vocabulary."""
    top, _ = first_largest(logits)
    below = jax.nn.relu(top[:, None] - logits - margin)
    return _sum(jnp.where(is_entry(logits[:1]), below, 0.0))


@_below.defjvp
def _(margin: float, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    # one pass over the logits; differentiating the maximum and relu would take several
    (logits,), (tangent,) = primals, tangents
    top, leader = first_largest(logits)
    leads = jnp.arange(logits.shape[-1]) == leader[:, None]
    pays = (is_entry(logits[:1]) & (top[:, None] - logits > margin)).astype(logits.dtype)
    slope = jnp.where(leads, _sum(pays)[:, None], -pays)
    return _below(margin, logits), jnp.sum(slope * tangent, axis=-1)


def _sum(rows: Float[Array, "tokens vocab"]) -> Float[Array, " tokens"]:
    """Returns the sums of rows, by a product: on a CPU it takes half as long as a reduction."""
    return rows @ jnp.ones(rows.shape[-1], rows.dtype)


@dataclasses.dataclass(frozen=True)
class ZLoss(TokenLoss):
    """z-loss: -log p_y + c (log Z)^2, where log Z = logsumexp(z).

    It keeps the normaliser Z near 1; the softmax alone leaves Z undetermined.

    Attributes:
        coefficient: c >= 0.

    Example:
        >>> from calibtrain.readout import statistics
        >>> loss = ZLoss(coefficient=0.01)
        >>> logits = jnp.log(jnp.array([[1.0, 1.0]]))  # Z = 2
        >>> stats = statistics(logits, jnp.array([0]), functionals=loss.functionals)
        >>> print(loss.per_token(stats) - stats.nll)  # 0.01 (log 2)^2
        [0.0048]

    References:
        Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways", JMLR 2023, section 5.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    coefficient: float = 1e-4

    @property
    def functionals(self) -> Mapping[str, Functional]:
        return {_LOG_NORMALIZER: lambda logits, labels: jax.nn.logsumexp(logits, axis=-1)}

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token, in nats."""
        return stats.nll + self.coefficient * jnp.square(stats.extra[_LOG_NORMALIZER])


_LOG_NORMALIZER = "log normalizer"
