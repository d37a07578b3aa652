"""Calibration errors over soft bins, which move smoothly with the confidences."""

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
"""Weight of a bin that counts as inhabited; the square of it must not underflow."""


@dataclasses.dataclass(frozen=True)
class SoftBinnedECE(BatchLoss):
    """(sum_j S_j / N |A_j - C_j|^2)^(1/2) over soft bins (SB-ECE: Karandikar et al., NeurIPS 2021).

    A token of confidence r belongs to bin j with softmax_j(-(r - x_j)^2 / T), x_j the centres of M
    equal bins; S_j, A_j and C_j are the members' weight, accuracy and mean confidence.

    Attributes:
        bins: M.
        decay: d > 1: at a bin's centre the next bin has 1 / d of its membership, which is
            T = 1 / (M^2 ln d).
    """

    fields: ClassVar[tuple[str, ...]] = ("log_confidence", "correct")
    bins: int = 15
    decay: float = 2.0

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """No unit."""
        gap, share = _gaps(stats.confidence, stats.correct, weights, self.bins, self.decay)
        return safe_root(jnp.sum(share * jnp.square(gap)))


@dataclasses.dataclass(frozen=True)
class DECE(BatchLoss):
    """sum_j S_j / N |A_j - C_j|, bins soft and the accuracy differentiable (Bohdal et al. 2023).

    A token is right to the degree relu(2 - rank), rank = 1 + sum_{v != y} sigmoid((z_v - z_y) / t):
    1 where the target leads, 0 where it does not. Of the soft ranks only the target's is needed, so
    that a token costs V, not V^2. Logits are compared here, not probabilities: thousands of entries
    with p near 0 would each be half a rank above a target of p near 0.

    Bins are those of `SoftBinnedECE`.

    Attributes:
        bins: M.
        decay: d, as for `SoftBinnedECE`.
        rank_temperature: t > 0, in units of logits.
    """

    fields: ClassVar[tuple[str, ...]] = ("log_confidence",)
    bins: int = 15
    decay: float = 2.0
    rank_temperature: float = 0.1

    @property
    def functionals(self) -> Mapping[str, Functional]:
        return {self._name: self._ahead}

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """No unit."""
        accuracy = jax.nn.relu(1 - stats.extra[self._name])
        gap, share = _gaps(stats.confidence, accuracy, weights, self.bins, self.decay)
        return jnp.sum(share * jnp.abs(gap))

    @property
    def _name(self) -> str:
        return f"entries ahead of the target, softened by {self.rank_temperature}"

    def _ahead(
        self, logits: Float[Array, "tokens vocab"], labels: Int[Array, " tokens"]
    ) -> Float[Array, " tokens"]:
        is_label = jnp.arange(logits.shape[-1]) == labels[:, None]
        own = jnp.sum(jnp.where(is_label, logits, 0.0), axis=-1, keepdims=True)
        ahead = jax.nn.sigmoid((logits - own) / self.rank_temperature)
        return jnp.sum(jnp.where(is_label | ~is_entry(logits), 0.0, ahead), axis=-1)


def _gaps(
    confidence: Float[Array, "*tokens"],
    accuracy: Float[Array, "*tokens"],
    weights: Float[Array, "*tokens"],
    bins: int,
    decay: float,
) -> tuple[Float[Array, " bins"], Float[Array, " bins"]]:
    """Accuracy minus confidence of each soft bin, and its share of the weight."""
    confidence, accuracy, weights = (x.reshape(-1) for x in (confidence, accuracy, weights))
    centres = (jnp.arange(bins) + 0.5) / bins
    temperature = 1 / (bins**2 * math.log(decay))
    distance = jnp.square(confidence[:, None] - centres)
    members = jax.nn.softmax(-distance / temperature, axis=-1) * weights[:, None]
    size = jnp.sum(members, axis=0)
    inhabited = size > _LEAST
    gap = (accuracy - confidence) @ members / jnp.where(inhabited, size, 1.0)
    return jnp.where(inhabited, gap, 0.0), size / positive(jnp.sum(weights))
