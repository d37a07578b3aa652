"""Right and wrong tokens re-weighted by the inverse of their share, as adaptive temperature
scaling's code does (Xie et al., EMNLP 2024): half of the loss each, however often a model is right.

A temperature does not change which token is the most probable, so that the shares are those of the
frozen model on the whole text, not of a batch.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float

from calibtrain.fitting.fit_head import TokenLoss
from calibtrain.fitting.frozen import mean_over
from calibtrain.posthoc.hidden import HiddenText
from calibtrain.readout import TokenStats


@dataclasses.dataclass(frozen=True)
class Balanced:
    """A token loss over 2 s of the right tokens, and over 2 (1 - s) of the wrong.

    Attributes:
        loss: of a token.
        right: s, the share of the right ones.
    """

    loss: TokenLoss
    right: float

    @property
    def fields(self) -> tuple[str, ...]:
        """What the loss reads, and what tells right from wrong."""
        return tuple(dict.fromkeys((*self.loss.fields, "correct")))

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """The loss of each token."""
        share = jnp.where(stats.correct > 0, self.right, 1 - self.right)
        return self.loss.per_token(stats) / (2 * jnp.maximum(share, 1e-6))


def share_right(text: HiddenText) -> float:
    """The share of a text's tokens that the frozen model holds most probable."""
    score = text.frozen.scorer(None, ("correct",))
    return mean_over(score, None, text.states, lambda stats: stats.correct)
