"""What a loss that couples tokens adds to the gradient of a sum over tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array

from calibtrain.readout.token_stats import FIELDS, Functional, TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float

Reduction = Callable[[Array, Array, Array], Any]
"""Reduces a chunk: (logits [tokens, vocab], labels [tokens], weights [tokens]) -> arrays that add
up over chunks."""


@dataclasses.dataclass(frozen=True)
class Cotangents:
    """Derivatives of a loss that couples tokens, with respect to what it reads of them.

    Attributes:
        stats: one derivative for each statistic of each token (0 for tokens that the loss does not
            read), and one for each of the sums.
        weights: weights of the tokens in the sums.
        reduction: computes the sums from a chunk's logits; None if the loss reads no sums.
        functionals: the functionals of the logits that `stats.extra` is about, by name.
    """

    stats: TokenStats
    weights: Float[Array, "*tokens"]
    reduction: Reduction | None = None
    functionals: Mapping[str, Functional] = dataclasses.field(default_factory=dict)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of `TokenStats` that the loss reads."""
        return tuple(name for name in FIELDS if getattr(self.stats, name) is not None)

    @property
    def by_token(self) -> TokenStats:
        """Derivatives with respect to statistics of tokens, without those of the sums."""
        return dataclasses.replace(self.stats, sums={})

    def inner_product(
        self, by_token: TokenStats, weights: Array, stats: TokenStats, logits: Array, labels: Array
    ) -> Array:
        """Returns the sum of derivative times statistic over a chunk."""
        pairs = [(slope, stats.extra[name]) for name, slope in by_token.extra.items()]
        for field in FIELDS:
            if getattr(by_token, field) is not None:
                pairs.append((getattr(by_token, field), getattr(stats, field)))
        if self.reduction is not None:
            sums = self.reduction(logits, labels, weights)
            pairs.extend((slope, sums[name]) for name, slope in self.stats.sums.items())
        return sum((jnp.sum(slope * value) for slope, value in pairs), start=jnp.zeros(()))
