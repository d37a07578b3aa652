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
    """-log p_y."""

    fields: ClassVar[tuple[str, ...]] = ("nll",)

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """-log p of the target."""
        return stats.nll


@dataclasses.dataclass(frozen=True)
class LabelSmoothing(TokenLoss):
    """-(1 - e) log p_y - e mean_v log p_v (Szegedy et al., CVPR 2016).

    Cross entropy with the target (1 - e) one-hot + e / V. Its optimum is no longer the true
    distribution: every entry, however impossible, keeps about e / V.

    Attributes:
        smoothing: e in [0, 1).
    """

    fields: ClassVar[tuple[str, ...]] = ("nll", "mean_log_prob")
    smoothing: float = 0.05

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Of each token."""
        return (1 - self.smoothing) * stats.nll - self.smoothing * stats.mean_log_prob
