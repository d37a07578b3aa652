"""Objectives over the candidate answers of questions (Jiang et al., TACL 2021)."""

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


@dataclasses.dataclass(frozen=True)
class CandidateSoftmax(BatchLoss):
    """Mean over questions of -log softmax(s)_right, with s a candidate's log-probability.

    s is the sum over a candidate's tokens, in nats. The rows of a question stand side by side, the
    right candidate first; tokens outside of the candidates have weight 0.

    Attributes:
        choices: candidates of each question.

    Example:
        >>> stats = TokenStats(nll=jnp.array([[1.0, 2.0], [3.0, 0.0]]))
        >>> print(f"{CandidateSoftmax(2)(stats, jnp.ones((2, 2))):.4f}")  # s = -3 and -3: log 2
        0.6931

    References:
        Jiang et al., "How Can We Know When Language Models Know? On the Calibration of Language
            Models for Question Answering", TACL 2021.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    choices: int = 4
    tokens: int | None = dataclasses.field(default=None, kw_only=True)

    def __call__(self, stats: TokenStats, weights: Float[Array, "rows time"]) -> Float[Array, ""]:
        """Returns the loss in nats per question."""
        scores = candidate_scores(stats, weights, self.choices)
        return -jnp.mean(jax.nn.log_softmax(scores, axis=-1)[:, 0])


@dataclasses.dataclass(frozen=True)
class CandidateMargin(BatchLoss):
    """Mean over questions of sum max(0, 1 + s_wrong - s_right), over the wrong candidates.

    Rows and scores are those of `CandidateSoftmax`. Once every wrong candidate is less probable by
    a factor of e, the loss is 0.

    Attributes:
        choices: candidates of each question.

    Example:
        >>> stats = TokenStats(nll=jnp.array([[1.0], [1.5], [4.0]]))  # s_right = -1
        >>> print(CandidateMargin(3)(stats, jnp.ones((3, 1))))
        0.5

    References:
        Jiang et al. (2021), as for `CandidateSoftmax`.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll",)
    choices: int = 4
    tokens: int | None = dataclasses.field(default=None, kw_only=True)

    def __call__(self, stats: TokenStats, weights: Float[Array, "rows time"]) -> Float[Array, ""]:
        """Returns the loss in nats per question."""
        scores = candidate_scores(stats, weights, self.choices)
        return jnp.mean(jax.nn.relu(1 + scores[:, 1:] - scores[:, :1]).sum(-1))


def candidate_scores(
    stats: TokenStats, weights: Float[Array, "rows time"], choices: int
) -> Float[Array, "questions choices"]:
    """Returns the log-probability of each candidate, summed over its tokens, in nats."""
    return -jnp.sum(stats.nll * weights, axis=-1).reshape(-1, choices)
