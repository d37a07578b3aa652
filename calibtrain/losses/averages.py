"""Batch losses that compare averages: of confidence and accuracy, of probabilities and frequencies,
of uncertainty where the model is right and where it is wrong."""

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
    """|mean accuracy - mean confidence| (Liang et al., BMVC 2020)."""

    fields: ClassVar[tuple[str, ...]] = ("log_confidence", "correct")

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """No unit."""
        return jnp.abs(weighted_mean(stats.correct - stats.confidence, weights))


@dataclasses.dataclass(frozen=True)
class MDCA(BatchLoss):
    """sum_v |mean_t p_tv - share of the targets that are v| (Hebbalaguppe et al., CVPR 2022).

    The paper averages over the V entries, which at a language model's vocabulary leaves no
    gradient: here it is the sum, in [0, 2].
    """

    fields: ClassVar[tuple[str, ...]] = ()

    @property
    def reductions(self) -> Mapping[str, Reduction]:
        return {_GAPS: _gaps_by_entry}

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """No unit."""
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
    """log(1 + (n_AU + n_IC) / (n_AC + n_IU)): accuracy versus uncertainty (Krishnan & Tickoo 2020).

    Soft counts of accurate (A) and inaccurate (I) tokens that are certain (C) or uncertain (U):
    an accurate token weighs its confidence r, another 1 - r, and is uncertain to the degree
    sigmoid((H / log V - k) / t) (the soft version follows Karandikar et al. 2021).

    Attributes:
        vocab_size: V, whose logarithm is the largest entropy.
        threshold: k in (0, 1).
        temperature: t > 0.
    """

    fields: ClassVar[tuple[str, ...]] = ("log_confidence", "correct", "entropy")
    vocab_size: int
    threshold: float = 0.5
    temperature: float = 0.1

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """No unit."""
        level = stats.entropy / math.log(self.vocab_size)
        uncertain = jax.nn.sigmoid((level - self.threshold) / self.temperature)
        accurate = stats.correct * stats.confidence * weights
        inaccurate = (1 - stats.correct) * one_minus_exp(stats.log_confidence) * weights
        bad = jnp.sum(accurate * uncertain + inaccurate * (1 - uncertain))
        good = jnp.sum(accurate * (1 - uncertain) + inaccurate * uncertain)
        return jnp.log1p(bad / jnp.maximum(good, 1e-6))
