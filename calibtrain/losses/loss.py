"""What a loss is: which statistics it reads, and what it makes of them.

There are two kinds. A token loss is a number a token, and its value over a batch is their weighted
mean: it adds up over chunks, micro-batches and devices. A batch loss couples tokens (it compares
mean confidence with mean accuracy, say): its value over two halves says nothing about the whole, so
it declares over which tokens of a batch it is computed, and is computed over those at once.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
from jax import Array

from calibtrain.readout import Functional, Reduction, TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float


class TokenLoss(abc.ABC):
    """Base of the losses that are a number a token, in nats unless said.

    Attributes:
        fields: of `TokenStats` that it reads.
    """

    fields: ClassVar[tuple[str, ...]]

    @property
    def functionals(self) -> Mapping[str, Functional]:
        """Functionals of the logits that it reads from `TokenStats.extra`, by name."""
        return {}

    @abc.abstractmethod
    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """The loss of each token."""

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """Weighted mean over the tokens."""
        return weighted_mean(self.per_token(stats), weights)


@dataclasses.dataclass(frozen=True)
class BatchLoss(abc.ABC):
    """Base of the losses that couple tokens.

    Attributes:
        fields: of `TokenStats` that it reads.
        tokens: about how many tokens of a batch it is computed over, of a few rows, evenly spaced
            in each and moving from step to step; none: all.
    """

    fields: ClassVar[tuple[str, ...]]
    tokens: int | None = dataclasses.field(default=1024, kw_only=True)

    @property
    def functionals(self) -> Mapping[str, Functional]:
        """Functionals of the logits that it reads from `TokenStats.extra`, by name."""
        return {}

    @property
    def reductions(self) -> Mapping[str, Reduction]:
        """Sums over tokens that it reads from `TokenStats.sums`, by name."""
        return {}

    @abc.abstractmethod
    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """The loss of these tokens together."""


def weighted_mean(
    values: Float[Array, "*tokens"], weights: Float[Array, "*tokens"]
) -> Float[Array, ""]:
    """sum w x / sum w; 0 of nothing."""
    return jnp.sum(values * weights) / positive(jnp.sum(weights))


def positive(total: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """A denominator: 1 in the place of 0, over which there is nothing to divide."""
    return jnp.where(total > 0, total, 1.0)


def one_minus_exp(log_probability: Float[Array, "*tokens"]) -> Float[Array, "*tokens"]:
    """1 - p without cancellation, for p near 1."""
    return -jnp.expm1(log_probability)


def safe_power(
    base: Float[Array, "*shape"], exponent: float, least: float = 0.0
) -> Float[Array, "*shape"]:
    """base ** exponent for base >= 0, with gradient 0 instead of infinity at 0.

    Args:
        base: what is raised; what is no more than `least` counts as 0.
        exponent: of at least 0; to the power of 0 all is 1.
        least: what rounding may make of a 0.
    """
    if exponent == 0:
        return jnp.ones_like(base)
    above = base > least
    return jnp.where(above, jnp.where(above, base, 1.0) ** exponent, 0.0)


def safe_root(square: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The root of a square of calibration errors, of which rounding leaves a tiny number for 0."""
    return safe_power(square, 0.5, TINY)


TINY = 1e-12
"""Squares of calibration errors below it are rounding."""
