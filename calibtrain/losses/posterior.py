"""PosCal: confidences are pulled to the accuracies of earlier tokens (Jung et al., 2020)."""

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
"""Probabilities are clipped to this distance from 0 and 1, so that the divergence is finite."""


@dataclasses.dataclass(frozen=True)
class PosCal(TokenLoss):
    """Posterior calibration: -log p_y + l KL(q || r), q the accuracy in the bin of confidence r.

    Bins of equal width count earlier tokens and how many of them were right. Every `refresh_every`
    steps the accuracies counted become the posteriors q, and counting starts anew. There is no
    penalty before the first time, nor in bins without tokens. The paper keeps a table for each
    class; those would be nearly empty at a language model's vocabulary, so here all entries share
    one table, for the confidence of the most probable entry.

    Attributes:
        strength: l >= 0.
        bins: number of bins of the confidence.
        refresh_every: number of steps between two refreshes of the posteriors.
        posterior: q of each bin, -1 where a bin has none. None means that no bin has one.

    Example:
        >>> loss = PosCal(bins=2, posterior=jnp.array([-1.0, 0.5]))
        >>> stats = TokenStats(
        ...     nll=-jnp.log(jnp.array([0.4, 0.9])), log_confidence=jnp.log(jnp.array([0.4, 0.9]))
        ... )
        >>> print(loss.per_token(stats))  # the first bin has no posterior
        [0.9163 0.6162]

    References:
        Jung et al., "Posterior Calibrated Training on Sentence Classification Tasks", ACL 2020.
    """

    fields: ClassVar[tuple[str, ...]] = ("nll", "log_confidence", "correct")
    strength: float = 1.0
    bins: int = 10
    refresh_every: int = 100
    posterior: Float[Array, " bins"] | None = None

    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token, in nats."""
        if self.posterior is None:
            return stats.nll
        q, bins = jnp.zeros_like(stats.nll), self._bin(stats)
        for number in range(
            self.bins
        ):  # one select per bin: a gather does not partition on every mesh
            q = jnp.where(bins == number, self.posterior[number], q)
        right = jnp.maximum(stats.confidence, _LEAST)
        wrong = jnp.maximum(one_minus_exp(stats.log_confidence), _LEAST)
        inside = jnp.clip(q, _LEAST, 1 - _LEAST)
        divergence = inside * jnp.log(inside / right) + (1 - inside) * jnp.log((1 - inside) / wrong)
        return stats.nll + self.strength * jnp.where(q >= 0, divergence, 0.0)

    def initial_state(self) -> State:
        """Returns the state before training: counts of 0, and no posteriors."""
        zeros = jnp.zeros((self.bins,), jnp.float32)
        return {"weight": zeros, "correct": zeros, "posterior": zeros - 1}

    def bound(self, state: State) -> PosCal:
        """Returns the loss with the posteriors of a state."""
        return dataclasses.replace(self, posterior=state["posterior"])

    def count(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> State:
        """Returns what tokens add to the counts; it adds up over micro-batches and devices."""
        member = (self._bin(stats)[..., None] == jnp.arange(self.bins)) * weights[..., None]
        axes = tuple(range(member.ndim - 1))
        correct = jnp.sum(member * stats.correct[..., None], axis=axes)
        return {"weight": jnp.sum(member, axis=axes), "correct": correct}

    def advanced(self, state: State, counts: State, step: Int[Array, ""]) -> State:
        """Returns the state after a step whose tokens gave these counts."""
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
