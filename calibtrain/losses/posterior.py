"""PosCal: confidences are pulled to the accuracies seen a while ago (Jung et al., 2020)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
from jax import Array

from calibtrain.losses.loss import TokenLoss, one_minus_exp
from calibtrain.readout import TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

State = dict[str, Array]

_LEAST = 1e-6
"""Probabilities nearer to 0 or 1 count as this near: the divergence stays finite."""


@dataclasses.dataclass(frozen=True)
class PosCal(TokenLoss):
    """-log p_y + l KL(q || r), q the accuracy of earlier tokens of about the same confidence r.

    Equal bins of the confidence count tokens and right ones; every `refresh_every` steps the counts
    become the posteriors q and start anew. Until the first time, and in bins that saw nothing,
    there is no penalty. The paper keeps a table for each class; at a language model's vocabulary
    those would be empty, so that all entries share one, of the most probable entry's confidence.

    Attributes:
        strength: l >= 0.
        bins: of the confidence.
        refresh_every: steps.
        posterior: q of each bin, -1 where there is none; none: nowhere.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll", "log_confidence", "correct")
    strength: float = 1.0
    bins: int = 10
    refresh_every: int = 100
    posterior: Float[Array, " bins"] | None = None

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Of each token."""
        if self.posterior is None:
            return stats.nll
        q, bins = jnp.zeros_like(stats.nll), self._bin(stats)
        for number in range(self.bins):  # a select a bin: a gather would not do on every mesh
            q = jnp.where(bins == number, self.posterior[number], q)
        right = jnp.maximum(stats.confidence, _LEAST)
        wrong = jnp.maximum(one_minus_exp(stats.log_confidence), _LEAST)
        inside = jnp.clip(q, _LEAST, 1 - _LEAST)
        divergence = inside * jnp.log(inside / right) + (1 - inside) * jnp.log((1 - inside) / wrong)
        return stats.nll + self.strength * jnp.where(q >= 0, divergence, 0.0)

    def initial_state(self) -> State:
        """Counts of nothing, posteriors of nothing."""
        zeros = jnp.zeros((self.bins,), jnp.float32)
        return {"weight": zeros, "correct": zeros, "posterior": zeros - 1}

    def bound(self, state: State) -> PosCal:
        """The loss with the posteriors of a state."""
        return dataclasses.replace(self, posterior=state["posterior"])

    def count(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> State:
        """What tokens add to the counts: adds up over micro-batches and devices."""
        member = (self._bin(stats)[..., None] == jnp.arange(self.bins)) * weights[..., None]
        axes = tuple(range(member.ndim - 1))
        correct = jnp.sum(member * stats.correct[..., None], axis=axes)
        return {"weight": jnp.sum(member, axis=axes), "correct": correct}

    def advanced(self, state: State, counts: State, step: Int[Array, ""]) -> State:
        """The state after a step that counted so much."""
        weight, correct = state["weight"] + counts["weight"], state["correct"] + counts["correct"]
        is_due = (step + 1) % self.refresh_every == 0
        seen = jnp.where(weight > 0, correct / jnp.where(weight > 0, weight, 1.0), -1.0)
        return {
            "weight": jnp.where(is_due, 0.0, weight),
            "correct": jnp.where(is_due, 0.0, correct),
            "posterior": jnp.where(is_due, seen, state["posterior"]),
        }

    def _bin(self, stats: TokenStats) -> Int[Array, "*tokens"]:
        scaled = (stats.confidence * self.bins).astype(jnp.int32)
        return jnp.minimum(scaled, self.bins - 1)
