"""Right and wrong tokens weighted by the inverse of their share, so that each has half the loss.

This is what the code of adaptive temperature scaling does (Xie et al., EMNLP 2024). A temperature
leaves the most probable token as it is, so the shares are those of the frozen model on the whole
text, and not those of a batch.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import Array

from calibtrain.fitting.head import TokenLoss
from calibtrain.fitting.hidden_states import HiddenStates
from calibtrain.fitting.output_layer import OutputLayer, mean_over
from calibtrain.readout import TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Balanced:
    """A token loss divided by 2 s for right tokens, and by 2 (1 - s) for wrong ones.

    Attributes:
        loss: the loss per token.
        right: s, the share of right tokens.
    """

    loss: TokenLoss
    right: float

    @property
    def fields(self) -> tuple[str, ...]:
        """The statistics that the loss reads, and the one that tells right from wrong."""
        return tuple(dict.fromkeys((*self.loss.fields, "correct")))

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token."""
        share = jnp.where(stats.correct > 0, self.right, 1 - self.right)
        return self.loss.per_token(stats) / (2 * jnp.maximum(share, 1e-6))


def share_right(output_layer: OutputLayer, states: HiddenStates) -> float:
    """Returns the share of a text's tokens that the frozen model holds most probable."""
    score = output_layer.scorer(None, ("correct",))
    return mean_over(score, None, states, lambda stats: stats.correct)
