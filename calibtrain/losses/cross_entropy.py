"""Cross entropy, the proper loss that everything else is compared with; and label smoothing."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from jax import Array

from calibtrain.losses.loss import TokenLoss
from calibtrain.readout import TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class CrossEntropy(TokenLoss):
    """Cross entropy: -log p_y.

    Example:
        >>> import jax.numpy as jnp
        >>> stats = TokenStats(nll=-jnp.log(jnp.array([0.5, 0.2])))
        >>> print(CrossEntropy().per_token(stats))
        [0.6931 1.6094]
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the negative log-likelihood per token, in nats."""
        return stats.nll


@dataclasses.dataclass(frozen=True)
class LabelSmoothing(TokenLoss):
    """Label smoothing: -(1 - e) log p_y - e mean_v log p_v.

    This is cross entropy with the target (1 - e) one-hot + e / V. Its optimum is not the true
    distribution: every entry, however impossible, keeps about e / V.

    Attributes:
        smoothing: e in [0, 1).

    Example:
        >>> import jax.numpy as jnp
        >>> log_p = jnp.log(jnp.array([0.7, 0.2, 0.1]))
        >>> stats = TokenStats(nll=-log_p[:1], mean_log_prob=log_p.mean(keepdims=True))
        >>> print(LabelSmoothing(smoothing=0.1).per_token(stats))
        [0.4633]

    References:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll", "mean_log_prob")
    smoothing: float = 0.05

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token, in nats."""
        return (1 - self.smoothing) * stats.nll - self.smoothing * stats.mean_log_prob
