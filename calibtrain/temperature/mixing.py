"""What matrix scaling adds to a diagonal: M of W = diag(w) + M, zero before it is fitted.

M is a full matrix without its diagonal, or a product of two thin matrices. Parameters are stored
times the number of entries that a logit is summed over, so that AdamW at one learning rate moves
logits through M by about as much per step as through a bias.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.models import Params

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float


class Mixing(Protocol):
    """Computes what every logit receives from the others."""

    def init(self, key: Array) -> Params:
        """Returns fresh float32 parameters, which give M = 0."""

    def mixed(
        self, params: Params, unembedding: Float[Array, "width vocab"]
    ) -> Float[Array, "width vocab"]:
        """Returns U M^T, the columns of the logits M z."""

    def mean_square(self, params: Params) -> Float[Array, ""]:
        """Returns the mean squared entry of M off its diagonal."""


@dataclasses.dataclass(frozen=True)
class FullMixing:
    """Any matrix M with a zero diagonal (a `Mixing`).

    Attributes:
        vocab_size: number of rows and of columns.
    """

    vocab_size: int

    def init(self, key: Array) -> Params:
        """Returns fresh parameters: the entries off the diagonal, row by row."""
        shape = (self.vocab_size - 1, self.vocab_size)
        return {"off_diagonal": jnp.zeros(shape, jnp.float32)}

    def matrix(self, params: Params) -> Float[Array, "vocab vocab"]:
        """Returns M."""
        # between two entries of the diagonal lie vocab_size others, row by row
        after_each = jnp.pad(params["off_diagonal"], ((0, 0), (0, 1))).reshape(-1)
        whole = jnp.pad(after_each, (1, 0)).reshape(self.vocab_size, self.vocab_size)
        return whole / self.vocab_size

    def mixed(
        self, params: Params, unembedding: Float[Array, "width vocab"]
    ) -> Float[Array, "width vocab"]:
        """Returns U M^T, the columns of the logits M z."""
        return unembedding @ self.matrix(params).T

    def mean_square(self, params: Params) -> Float[Array, ""]:
        """Returns the mean squared entry of M off its diagonal."""
        return jnp.mean(jnp.square(params["off_diagonal"] / self.vocab_size))


@dataclasses.dataclass(frozen=True)
class LowRankMixing:
    """M = A B^T with thin matrices A and B (a `Mixing`).

    Attributes:
        vocab_size: number of rows of A and of B.
        rank: number of their columns.
    """

    vocab_size: int
    rank: int

    def init(self, key: Array) -> Params:
        """Returns fresh parameters: A = 0, and B drawn at random."""
        shape = (self.vocab_size, self.rank)
        return {
            "out": jnp.zeros(shape, jnp.float32),
            "into": jax.random.normal(key, shape, jnp.float32),
        }

    def mixed(
        self, params: Params, unembedding: Float[Array, "width vocab"]
    ) -> Float[Array, "width vocab"]:
        """Returns U M^T, the columns of the logits M z."""
        return (unembedding @ params["into"]) @ params["out"].T / self._divisor

    def mean_square(self, params: Params) -> Float[Array, ""]:
        """Returns the mean squared entry of M off its diagonal."""
        out, into = params["out"], params["into"]
        whole = jnp.sum((out.T @ out) * (into.T @ into))
        diagonal = jnp.sum(jnp.square(jnp.sum(out * into, axis=1)))
        pairs = self.vocab_size * (self.vocab_size - 1)
        return (whole - diagonal) / (pairs * self._divisor**2)

    @property
    def _divisor(self) -> float:
        return self.rank * self.vocab_size**0.5
