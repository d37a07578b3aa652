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
    """Maximum mean calibration error: sqrt(mean_ij (c_i - r_i)(c_j - r_j) exp(-|r_i - r_j| / 0.4)).

    r is the confidence of a token; c is 1 where it is right, else 0.

    The weighted form (equation 7 of the paper) averages right and wrong tokens apart, so that the
    rarer kind keeps its influence: |mean over the right of (1 - r) phi(r) - mean over the wrong of
    r phi(r)|, where phi are the kernel's features.

    The loss compares all pairs: memory and time grow with the square of `tokens`.

    Attributes:
        weighted: whether right and wrong tokens are averaged apart.
        width: of the kernel, in units of confidence.

    Example:
        >>> confidence, correct = jnp.array([0.9, 0.9]), jnp.array([1.0, 0.0])
        >>> stats = TokenStats(log_confidence=jnp.log(confidence), correct=correct)
        >>> print(f"{MMCE()(stats, jnp.ones(2)):.4f}")  # one confidence: |accuracy - confidence|
        0.4000

    References:
        Kumar et al., "Trainable Calibration Measures for Neural Networks from Kernel Mean
        Embeddings", ICML 2018.
    """

    fields: ClassVar[tuple[str, ...]] = ("log_confidence", "correct")
    weighted: bool = False
    width: float = 0.4

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """Returns the error of these tokens together, without a unit; at least 0."""
        confidence, correct = stats.confidence.reshape(-1), stats.correct.reshape(-1)
        weights = weights.reshape(-1)
        if self.weighted:
            right, wrong = weights * correct, weights * (1 - correct)
            gap = _normalized(right) * (1 - confidence) - _normalized(wrong) * confidence
        else:
            gap = _normalized(weights) * (correct - confidence)
        kernel = jnp.exp(-jnp.abs(confidence[:, None] - confidence) / self.width)
        return safe_root(gap @ kernel @ gap)


def _normalized(weights: Float[Array, " tokens"]) -> Float[Array, " tokens"]:
    """The weights divided by their sum; all 0 where that is 0."""
    return weights / positive(jnp.sum(weights))
