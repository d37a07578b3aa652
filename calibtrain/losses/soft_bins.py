"""Calibration errors over soft bins: a token's membership changes smoothly with its confidence."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.losses.loss import BatchLoss, positive, safe_root
from calibtrain.readout import Functional, TokenStats, is_entry

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int


_LEAST = 1e-12
"""A bin of more weight than this counts as not empty; the square of it must not underflow."""


@dataclasses.dataclass(frozen=True)
class SoftBinnedECE(BatchLoss):
    """Soft-binned ECE (SB-ECE): (sum_j S_j / N |A_j - C_j|^2)^(1/2).

    A token of confidence r belongs to bin j by softmax_j(-(r - x_j)^2 / T), where x_j are the
    centres of M bins of equal width. S_j, A_j and C_j are the weight, accuracy and mean confidence
    of the members of bin j, and N is the weight of all tokens.

    Attributes:
        bins: M.
        decay: d > 1: at the centre of a bin, the membership of the next bin is 1 / d of its own,
            which makes T = 1 / (M^2 ln d).

    Example:
        >>> confidence, correct = jnp.array([0.9, 0.9]), jnp.array([1.0, 0.0])
        >>> stats = TokenStats(log_confidence=jnp.log(confidence), correct=correct)
        >>> print(f"{SoftBinnedECE()(stats, jnp.ones(2)):.4f}")
        0.4000

    References:
        Karandikar et al., "Soft Calibration Objectives for Neural Networks", NeurIPS 2021.
    """

    fields: ClassVar[tuple[str, ...]] = ("log_confidence", "correct")
    bins: int = 15
    decay: float = 2.0

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """Returns the error of these tokens together, without a unit; at least 0."""
        gap, share = _gaps(stats.confidence, stats.correct, weights, self.bins, self.decay)
        return safe_root(jnp.sum(share * jnp.square(gap)))


@dataclasses.dataclass(frozen=True)
class DECE(BatchLoss):
    """Differentiable ECE: sum_j S_j / N |A_j - C_j| over soft bins, with a soft accuracy.

    The soft accuracy of a token is relu(2 - rank), where rank = 1 + sum_{v != y} sigmoid((z_v -
    z_y) / t) is the soft rank of its target: 1 where the target leads clearly, 0 where another
    entry does. No other soft rank is needed, so that a token costs O(V) and not O(V^2). The rank
    compares logits and not probabilities, because each of thousands of entries with p near 0 would
    rank half a place above a target with p near 0.

    The bins are those of `SoftBinnedECE`.

    Attributes:
        bins: M.
        decay: d, as for `SoftBinnedECE`.
        rank_temperature: t > 0, in units of logits.

    Example:
        >>> from calibtrain.readout import statistics
        >>> logits, labels = jnp.log(jnp.array([[0.9, 0.1], [0.9, 0.1]])), jnp.array([0, 1])
        >>> stats = statistics(logits, labels, functionals=DECE().functionals)
        >>> print(f"{DECE()(stats, jnp.ones(2)):.4f}")
        0.4000

    References:
        Bohdal et al., "Meta-Calibration: Learning of Model Calibration Using Differentiable
        Expected Calibration Error", TMLR 2023.
    """

    fields: ClassVar[tuple[str, ...]] = ("log_confidence",)
    bins: int = 15
    decay: float = 2.0
    rank_temperature: float = 0.1

    @property
    def functionals(self) -> Mapping[str, Functional]:
        return {self._name: self._ranks_above}

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """Returns the error of these tokens together, without a unit; at least 0."""
        accuracy = jax.nn.relu(1 - stats.extra[self._name])
        gap, share = _gaps(stats.confidence, accuracy, weights, self.bins, self.decay)
        return jnp.sum(share * jnp.abs(gap))

    @property
    def _name(self) -> str:
        return f"entries ahead of the target, softened by {self.rank_temperature}"

    def _ranks_above(
        self, logits: Float[Array, "tokens vocab"], labels: Int[Array, " tokens"]
    ) -> Float[Array, " tokens"]:
        is_label = jnp.arange(logits.shape[-1]) == labels[:, None]
        own = jnp.sum(jnp.where(is_label, logits, 0.0), axis=-1, keepdims=True)
        above = jax.nn.sigmoid((logits - own) / self.rank_temperature)
        return jnp.sum(jnp.where(is_label | ~is_entry(logits), 0.0, above), axis=-1)


def _gaps(
    confidence: Float[Array, "*tokens"],
    accuracy: Float[Array, "*tokens"],
    weights: Float[Array, "*tokens"],
    bins: int,
    decay: float,
) -> tuple[Float[Array, " bins"], Float[Array, " bins"]]:
    """Returns accuracy minus confidence of each soft bin, and the bin's share of the weight."""
    confidence, accuracy, weights = (x.reshape(-1) for x in (confidence, accuracy, weights))
    centres = (jnp.arange(bins) + 0.5) / bins
    temperature = 1 / (bins**2 * math.log(decay))
    distance = jnp.square(confidence[:, None] - centres)
    members = jax.nn.softmax(-distance / temperature, axis=-1) * weights[:, None]
    size = jnp.sum(members, axis=0)
    filled = size > _LEAST
    gap = (accuracy - confidence) @ members / jnp.where(filled, size, 1.0)
    return jnp.where(filled, gap, 0.0), size / positive(jnp.sum(weights))
