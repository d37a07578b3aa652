"""Batch losses that compare averages over tokens.

They compare confidence with accuracy, probabilities with frequencies, and uncertainty where the
model is right with uncertainty where it is wrong.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.losses.loss import BatchLoss, one_minus_exp, positive, weighted_mean
from calibtrain.readout import Reduction, TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class DCA(BatchLoss):
    """Difference between confidence and accuracy, in [0, 1]: |mean accuracy - mean confidence|.

    Example:
        >>> stats = TokenStats(
        ...     log_confidence=jnp.log(jnp.array([0.9, 0.5])), correct=jnp.array([1.0, 0.0])
        ... )
        >>> print(f"{DCA()(stats, jnp.ones(2)):.4f}")
        0.2000

    References:
        Liang et al., "Improved Trainable Calibration Method for Neural Networks on Medical Imaging
        Classification", BMVC 2020.
    """

    fields: ClassVar[tuple[str, ...]] = ("log_confidence", "correct")

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """Returns |mean accuracy - mean confidence|, without a unit."""
        return jnp.abs(weighted_mean(stats.correct - stats.confidence, weights))


@dataclasses.dataclass(frozen=True)
class MDCA(BatchLoss):
    """Multi-class difference in confidence and accuracy: sum_v |mean_t p_tv - frequency of v|.

    The frequency of v is its share of the targets. The paper averages over the V entries, which
    leaves next to no gradient at a language model's vocabulary; this is the sum, in [0, 2].

    Example:
        >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]))
        >>> sums = {
        ...     name: reduction(logits, jnp.array([0, 0]), jnp.ones(2))
        ...     for name, reduction in MDCA().reductions.items()
        ... }
        >>> print(f"{MDCA()(TokenStats(sums=sums), jnp.ones(2)):.4f}")  # 0.3 + 0.2 + 0.1
        0.6000

    References:
        Hebbalaguppe et al., "A Stitch in Time Saves Nine: A Train-Time Regularizing Loss for
        Improved Neural Network Calibration", CVPR 2022.
    """

    fields: ClassVar[tuple[str, ...]] = ()

    @property
    def reductions(self) -> Mapping[str, Reduction]:
        return {_GAPS: _gaps_by_entry}

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """Returns the sum over the vocabulary, without a unit."""
        return jnp.sum(jnp.abs(stats.sums[_GAPS])) / positive(jnp.sum(weights))


_GAPS = "probability minus frequency, by entry"


def _gaps_by_entry(
    logits: Float[Array, "tokens vocab"],
    labels: Int[Array, " tokens"],
    weights: Float[Array, " tokens"],
) -> Float[Array, " vocab"]:
    is_label = jnp.arange(logits.shape[-1]) == labels[:, None]
    return weights @ (jax.nn.softmax(logits, axis=-1) - is_label)


@dataclasses.dataclass(frozen=True)
class AvUC(BatchLoss):
    """Accuracy versus uncertainty: log(1 + (n_AU + n_IC) / (n_AC + n_IU)).

    The n are soft counts of accurate (A) and inaccurate (I) tokens that are certain (C) or
    uncertain (U). An accurate token counts with its confidence r, an inaccurate one with 1 - r. A
    token of entropy H is uncertain to the degree sigmoid((H / log V - k) / t).

    Attributes:
        vocab_size: V; log V is the largest entropy.
        threshold: k in (0, 1).
        temperature: t > 0, the width of the border between certain and uncertain.

    Example:
        >>> stats = TokenStats(
        ...     log_confidence=jnp.log(jnp.array([0.9, 0.4])),
        ...     correct=jnp.array([1.0, 0.0]),
        ...     entropy=jnp.array([0.3, 1.0]),
        ... )
        >>> print(f"{AvUC(vocab_size=3)(stats, jnp.ones(2)):.4f}")  # certain and right, or neither
        0.0648

    References:
        Krishnan & Tickoo, "Improving Model Calibration with Accuracy versus Uncertainty
        Optimization", NeurIPS 2020. The soft counts follow Karandikar et al., NeurIPS 2021.
    """

    fields: ClassVar[tuple[str, ...]] = ("log_confidence", "correct", "entropy")
    vocab_size: int
    threshold: float = 0.5
    temperature: float = 0.1

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """Returns the loss of these tokens together, without a unit; at least 0."""
        level = stats.entropy / math.log(self.vocab_size)
        uncertain = jax.nn.sigmoid((level - self.threshold) / self.temperature)
        accurate = stats.correct * stats.confidence * weights
        inaccurate = (1 - stats.correct) * one_minus_exp(stats.log_confidence) * weights
        bad = jnp.sum(accurate * uncertain + inaccurate * (1 - uncertain))
        good = jnp.sum(accurate * (1 - uncertain) + inaccurate * uncertain)
        return jnp.log1p(bad / jnp.maximum(good, 1e-6))
