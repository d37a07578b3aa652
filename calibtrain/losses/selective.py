"""Selective smoothing, the loss of adaptive temperature scaling (Xie et al., EMNLP 2024)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
from jax import Array

from calibtrain.losses.loss import BatchLoss, TokenLoss, positive
from calibtrain.readout import TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float

_FIELDS = ("nll", "mean_log_prob", "correct")


@dataclasses.dataclass(frozen=True)
class SelectiveSmoothing(TokenLoss):
    """-(1 - a) log p_y where the most probable token is the target, else -a mean_v log p_v.

    Not proper: where the model errs it is pushed to the uniform distribution, whatever it gave the
    target. On a model that is calibrated already the nll must rise.

    Attributes:
        alpha: a in [0, 1].
    """

    fields: ClassVar[tuple[str, ...]] = _FIELDS
    alpha: float = 0.5

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Of each token."""
        return _selective(stats, self.alpha)


@dataclasses.dataclass(frozen=True)
class BalancedSelectiveSmoothing(BatchLoss):
    """The same with the right and the wrong tokens re-weighted by the inverse of their share.

    As the authors' code does: the mean over the right tokens plus the mean over the wrong ones. The
    shares are those of the batch, so that the tokens are coupled.

    Attributes:
        alpha: a in [0, 1].
    """

    fields: ClassVar[tuple[str, ...]] = _FIELDS
    alpha: float = 0.5

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """In nats."""
        each = _selective(stats, self.alpha) * weights
        total = jnp.zeros(())
        for members in (stats.correct, 1 - stats.correct):
            total += jnp.sum(each * members) / positive(jnp.sum(members * weights))
        return total


def _selective(stats: TokenStats, alpha: float) -> Float[Array, "*tokens"]:
    right = (1 - alpha) * stats.nll
    return jnp.where(stats.correct > 0, right, -alpha * stats.mean_log_prob)
