"""The two kinds of losses: which statistics a loss reads, and what it computes from them.

A token loss gives one number per token, and its value over a batch is their weighted mean: it adds
up over chunks, micro-batches and devices. A batch loss couples tokens (it compares mean confidence
with mean accuracy, for example). Its value over two halves does not give that of the whole, so it
declares over which tokens of a batch it is computed, and is computed over all of those at once.
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
    """Base of the losses that give one number per token, in nats unless they say otherwise.

    Attributes:
        fields: the fields of `TokenStats` that the loss reads.
    """

    fields: ClassVar[tuple[str, ...]]

    @property
    def functionals(self) -> Mapping[str, Functional]:
        """Functionals of the logits that the loss reads from `TokenStats.extra`, by name."""
        return {}

    @abc.abstractmethod
    def per_token(self, stats: TokenStats) -> Float[Array, "*tokens"]:
        """Returns the loss per token."""

    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """Returns the weighted mean over the tokens."""
        return weighted_mean(self.per_token(stats), weights)


@dataclasses.dataclass(frozen=True)
class BatchLoss(abc.ABC):
    """Base of the losses that couple tokens.

    Attributes:
        fields: the fields of `TokenStats` that the loss reads.
        tokens: about how many tokens of a batch the loss is computed over. They lie evenly spaced
            in a few rows, and move from step to step. None means all tokens.
    """

    fields: ClassVar[tuple[str, ...]]
    tokens: int | None = dataclasses.field(default=1024, kw_only=True)

    @property
    def functionals(self) -> Mapping[str, Functional]:
        """Functionals of the logits that the loss reads from `TokenStats.extra`, by name."""
        return {}

    @property
    def reductions(self) -> Mapping[str, Reduction]:
        """Sums over tokens that the loss reads from `TokenStats.sums`, by name."""
        return {}

    @abc.abstractmethod
    def __call__(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> Float[Array, ""]:
        """Returns the loss of these tokens together."""


def weighted_mean(
    values: Float[Array, "*tokens"], weights: Float[Array, "*tokens"]
) -> Float[Array, ""]:
    """Returns sum w x / sum w, or 0 where the weights are all 0."""
    return jnp.sum(values * weights) / positive(jnp.sum(weights))


def positive(total: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the total, or 1 where it is 0, so that it can be divided by."""
    return jnp.where(total > 0, total, 1.0)


def one_minus_exp(log_probability: Float[Array, "*tokens"]) -> Float[Array, "*tokens"]:
    """Returns 1 - p, given log p, without cancellation for p near 1."""
    return -jnp.expm1(log_probability)


def safe_power(
    base: Float[Array, "*shape"], exponent: float, least: float = 0.0
) -> Float[Array, "*shape"]:
    """Returns base ** exponent for base >= 0, with a gradient of 0 instead of infinity at 0.

    Args:
        base: at least 0; values up to `least` count as 0.
        exponent: at least 0; an exponent of 0 gives 1 everywhere.
        least: the largest value that rounding may leave in place of 0.

    Example:
        >>> print(safe_power(jnp.array([0.0, 4.0]), 0.5))
        [0. 2.]
        >>> import jax
        >>> print(jax.grad(lambda x: safe_power(x, 0.5))(0.0))
        0.0
    """
    if exponent == 0:
        return jnp.ones_like(base)
    above = base > least
    return jnp.where(above, jnp.where(above, base, 1.0) ** exponent, 0.0)


def safe_root(square: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns the root of a squared calibration error; squares up to `TINY` count as 0."""
    return safe_power(square, 0.5, TINY)


TINY = 1e-12
"""Squared calibration errors below this are rounding errors."""
