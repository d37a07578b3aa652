"""Direct preference optimisation (Rafailov et al., NeurIPS 2023)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.losses.loss import BatchLoss
from calibtrain.readout import TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float

REFERENCE = "reference"
"""Where `TokenStats.extra` holds the reference's log-probability of each row's answer, in nats."""


@dataclasses.dataclass(frozen=True)
class DPO(BatchLoss):
    """Direct preference optimisation: mean of -log sigmoid(b (log p_c/q_c - log p_r/q_r)).

    The mean is over pairs of answers; c is the chosen and r the rejected one. log p is the sum over
    an answer's tokens, and q is its probability under the reference, the model before fine-tuning.
    Rows come in pairs, the chosen answer first; tokens outside of the answers have weight 0.

    Attributes:
        beta: b > 0.

    Example:
        >>> stats = TokenStats(
        ...     nll=jnp.array([[1.0, 2.0], [3.0, 1.0]]), extra={REFERENCE: jnp.array([-3.0, -4.0])}
        ... )
        >>> print(f"{DPO()(stats, jnp.ones((2, 2))):.4f}")  # the model is the reference: log 2
        0.6931

    References:
        Rafailov et al., "Direct Preference Optimization: Your Language Model is Secretly a Reward
        Model", NeurIPS 2023.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    beta: float = 0.1
    tokens: int | None = dataclasses.field(default=None, kw_only=True)

    def __call__(self, stats: TokenStats, weights: Float[Array, "rows time"]) -> Float[Array, ""]:
        """Returns the loss in nats per pair; log 2 where the model equals the reference."""
        return jnp.mean(jax.nn.softplus(-self.beta * margins(stats, weights)))


def margins(stats: TokenStats, weights: Float[Array, "rows time"]) -> Float[Array, " pairs"]:
    """Returns log p_c/q_c - log p_r/q_r of each pair of rows, in nats."""
    gained = -jnp.sum(stats.nll * weights, axis=-1) - stats.extra[REFERENCE]
    return gained[0::2] - gained[1::2]
