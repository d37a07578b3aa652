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
    """mean -log sigmoid(b (log p_c / q_c - log p_r / q_r)) over pairs of answers, chosen, rejected.

    log p is the sum over an answer's tokens, q the reference's: the model before. Rows come in
    pairs, the chosen answer first; tokens that do not belong to an answer have weight 0.

    Attributes:
        beta: b > 0.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    beta: float = 0.1
    tokens: int | None = dataclasses.field(default=None, kw_only=True)

    def __call__(self, stats: TokenStats, weights: Float[Array, "rows time"]) -> Float[Array, ""]:
        """In nats a pair; log 2 where the model is the reference."""
        return jnp.mean(jax.nn.softplus(-self.beta * margins(stats, weights)))


def margins(stats: TokenStats, weights: Float[Array, "rows time"]) -> Float[Array, " pairs"]:
    """log p_c / q_c - log p_r / q_r of each pair of rows, in nats."""
    gained = -jnp.sum(stats.nll * weights, axis=-1) - stats.extra[REFERENCE]
    return gained[0::2] - gained[1::2]
