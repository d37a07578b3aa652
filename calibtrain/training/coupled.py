"""The tokens of a batch that losses which couple tokens are computed over.

Such a loss is computed over some whole rows rather than over some positions of all rows, because
a row takes its forward pass whole. The rows change from step to step.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array

from calibtrain.models.pieces import pieces_of
from calibtrain.readout import Functional
from calibtrain.training.objective import Objective, Term, fields_read, functionals_read

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Int

LEAST_ROWS = 4
"""Rows that a coupled loss is computed over, at least: tokens of one row resemble each other."""


@dataclasses.dataclass(frozen=True)
class CoupledTerms:
    """Batch terms over the same tokens, which share one pass over the logits.

    Attributes:
        tokens: about how many tokens of a batch; None means all.
        terms: the terms of the objective.
    """

    tokens: int | None
    terms: tuple[Term, ...]

    def rows(self, rows: int, context: int) -> int:
        """How many of a batch's rows hold the tokens: a divisor of `rows`, at least `LEAST_ROWS`.

        Args:
            rows: of the whole batch.
            context: tokens of each row.
        """
        if self.tokens is None:
            return rows
        wanted = min(rows, max(LEAST_ROWS, -(-self.tokens // context)))
        return next(n for n in range(wanted, rows + 1) if rows % n == 0)

    def selected_rows(
        self, step: Int[Array, ""] | int, rows: int, context: int
    ) -> Bool[Array, " rows"]:
        """Whether each row is one of those: evenly spaced ones, others in the next step."""
        every = rows // self.rows(rows, context)
        return jnp.arange(rows) % every == step % every

    def positions(
        self, step: Int[Array, ""] | int, rows: int, context: int
    ) -> Int[Array, " some"] | None:
        """Positions of these rows whose tokens count; None means all.

        They change once every row was selected.
        """
        some = self.rows(rows, context)
        each = context if self.tokens is None else max(1, self.tokens // some)
        if each >= context:
            return None
        return (step // (rows // some) + jnp.arange(each) * context // each) % context

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of `TokenStats` that the terms read."""
        return fields_read(self.terms)

    @property
    def functionals(self) -> dict[str, Functional]:
        """Functionals of the logits that the terms read, by name."""
        return functionals_read(self.terms)

    def reduction(self, logits: Array, labels: Array, weights: Array) -> dict[str, Any]:
        """Returns the sums over tokens that the terms read, by name."""
        found: dict[str, Any] = {}
        for term in self.terms:
            for name, reduce in term.loss.reductions.items():
                found[name] = reduce(logits, labels, weights)
        return found


def coupled_terms(objective: Objective) -> tuple[CoupledTerms, ...]:
    """Returns the batch terms of an objective, grouped by the tokens they are computed over."""
    terms = objective.batch_terms
    sizes = dict.fromkeys(term.loss.tokens for term in terms)
    return tuple(
        CoupledTerms(size, tuple(term for term in terms if term.loss.tokens == size))
        for size in sizes
    )


def default_micro_batches(
    rows: int, context: int, platform: str, objective: Objective, shares: int = 1
) -> int:
    """Returns the number of micro-batches that suits a platform.

    The first one holds all rows that batch terms are computed over, so that these take no forward
    pass of their own.

    Args:
        rows: of one device.
        context: tokens of each row.
        platform: of the device.
        objective: what is minimised.
        shares: devices that hold as many rows each.
    """
    needed = most_selected_rows(objective, rows, context, shares)
    return pieces_of(rows, context, platform, needed)


def most_selected_rows(objective: Objective, rows: int, context: int, shares: int) -> int:
    """Returns how many rows that batch terms are computed over one device holds, at most.

    Arguments as for `default_micro_batches`.
    """
    whole = rows * shares
    every = {whole // some.rows(whole, context) for some in coupled_terms(objective)}
    # every fourth row is among every second one
    apart = [n for n in every if not any(n % other == 0 for other in every - {n})]
    return min(rows, sum(-(-rows // n) for n in apart))
