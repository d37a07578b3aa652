"""MMCE: calibration error in a reproducing-kernel Hilbert space (Kumar et al., ICML 2018)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
from jax import Array

from calibtrain.losses.loss import BatchLoss, positive, safe_root
from calibtrain.readout import TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class MMCE(BatchLoss):
    """sqrt( mean_ij (c_i - r_i) (c_j - r_j) exp(-|r_i - r_j| / 0.4) ), r confidence, c correct.

    Weighted (Kumar et al., equation 7): right and wrong tokens are averaged apart, |mean over the
    right of (1 - r) phi(r) - mean over the wrong of r phi(r)|, phi the kernel's features, so that
    the fewer are not drowned.

    Pairs of tokens: memory and time grow with the square of `tokens`.

    Attributes:
        weighted: whether right and wrong tokens are averaged apart.
        width: of the kernel.
    """

    fields: ClassVar[tuple[str, ...]] = ("log_confidence", "correct")
    weighted: bool = False
    width: float = 0.4

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """No unit."""
        confidence, correct = stats.confidence.reshape(-1), stats.correct.reshape(-1)
        weights = weights.reshape(-1)
        if self.weighted:
            right, wrong = weights * correct, weights * (1 - correct)
            gap = _share(right) * (1 - confidence) - _share(wrong) * confidence
        else:
            gap = _share(weights) * (correct - confidence)
        kernel = jnp.exp(-jnp.abs(confidence[:, None] - confidence) / self.width)
        return safe_root(gap @ kernel @ gap)


def _share(weights: Float[Array, " tokens"]) -> Float[Array, " tokens"]:
    return weights / positive(jnp.sum(weights))
