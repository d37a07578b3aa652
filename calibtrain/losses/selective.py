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
    """Selective smoothing: -(1 - a) log p_y where the model is right, else -a mean_v log p_v.

    The model is right where its most probable token is the target. The loss is not proper: where
    the model is wrong, it is pulled to the uniform distribution, whatever it gave the target. So
    the nll of a model that is calibrated already must rise.

    Attributes:
        alpha: a in [0, 1].

    Example:
        >>> log_p = jnp.log(jnp.array([0.7, 0.2, 0.1]))
        >>> stats = TokenStats(
        ...     nll=-log_p[:2],
        ...     mean_log_prob=jnp.full(2, log_p.mean()),
        ...     correct=jnp.array([1.0, 0.0]),
        ... )
        >>> print(SelectiveSmoothing().per_token(stats))
        [0.1783 0.7114]

    References:
        Xie et al., "Calibrating Language Models with Adaptive Temperature Scaling", EMNLP 2024.
    """

    fields: ClassVar[tuple[str, ...]] = _FIELDS
    alpha: float = 0.5

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token, in nats."""
        return _selective(stats, self.alpha)


@dataclasses.dataclass(frozen=True)
class BalancedSelectiveSmoothing(BatchLoss):
    """Selective smoothing with right and wrong tokens re-weighted by the inverse of their share.

    The loss is the mean over the right tokens plus the mean over the wrong ones, as in the authors'
    code. The shares are those of the batch, so that the tokens are coupled.

    Attributes:
        alpha: a in [0, 1].

    Example:
        >>> log_p = jnp.log(jnp.array([0.7, 0.2, 0.1]))
        >>> stats = TokenStats(
        ...     nll=-log_p[:2],
        ...     mean_log_prob=jnp.full(2, log_p.mean()),
        ...     correct=jnp.array([1.0, 0.0]),
        ... )
        >>> print(f"{BalancedSelectiveSmoothing()(stats, jnp.ones(2)):.4f}")  # 0.1783 + 0.7114
        0.8898
    """

    fields: ClassVar[tuple[str, ...]] = _FIELDS
    alpha: float = 0.5

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """Returns the loss of these tokens together, in nats."""
        each = _selective(stats, self.alpha) * weights
        total = jnp.zeros(())
        for members in (stats.correct, 1 - stats.correct):
            total += jnp.sum(each * members) / positive(jnp.sum(members * weights))
        return total


def _selective(stats: TokenStats, alpha: float) -> Float[Array, "*tokens"]:
    right = (1 - alpha) * stats.nll
    return jnp.where(stats.correct > 0, right, -alpha * stats.mean_log_prob)
