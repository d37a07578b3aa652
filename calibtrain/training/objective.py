"""What a run minimises: a sum of terms, each a loss with a weight that depends on the step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array

from calibtrain import losses
from calibtrain.losses import PosCal
from calibtrain.readout import Functional, TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

LossState = dict[str, dict[str, Array]]
"""What terms remember from step to step, by name; most remember nothing (PosCal does)."""


@dataclasses.dataclass(frozen=True)
class Term:
    """A loss in the sum.

    Attributes:
        name: its kind, with a number where a kind comes twice.
        loss: a `TokenLoss` or a `BatchLoss`.
        weight: its weight in the end.
        from_step: the step before which the weight is 0.
        ramp_steps: over how many steps the weight then rises linearly.
    """

    name: str
    loss: Any
    weight: float = 1.0
    from_step: int = 0
    ramp_steps: int = 0

    @property
    def is_plain(self) -> bool:
        """Whether it counts once, from the first step on."""
        return self.weight == 1 and not self.from_step and not self.ramp_steps

    def weight_at(self, step: Int[Array, ""]) -> Float[Array, ""] | float:
        """Returns the weight at a step; a plain number where it never changes."""
        if not self.from_step and not self.ramp_steps:
            return self.weight
        since = step - self.from_step
        risen = jnp.clip((since + 1) / max(1, self.ramp_steps), 0.0, 1.0)
        return self.weight * jnp.where(since >= 0, risen, 0.0)


@dataclasses.dataclass(frozen=True)
class Objective:
    """The sum of terms.

    Attributes:
        token_terms: terms whose loss is one number per token.
        batch_terms: terms whose loss couples tokens (`training.coupled`).
    """

    token_terms: tuple[Term, ...] = (Term("cross_entropy", losses.CrossEntropy()),)
    batch_terms: tuple[Term, ...] = ()

    @property
    def terms(self) -> tuple[Term, ...]:
        """All of them."""
        return (*self.token_terms, *self.batch_terms)

    @property
    def names(self) -> tuple[str, ...]:
        """Terms that are logged separately: all of them, or none if there is only one."""
        terms = self.terms
        return () if len(terms) == 1 and terms[0].is_plain else tuple(t.name for t in terms)

    @property
    def is_cross_entropy(self) -> bool:
        """Whether it is nothing but cross entropy."""
        return not self.names and isinstance(self.terms[0].loss, losses.CrossEntropy)

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields of `TokenStats` that the token terms read."""
        return fields_read(self.token_terms)

    @property
    def functionals(self) -> dict[str, Functional]:
        """Functionals of the logits that the token terms read, by name."""
        return functionals_read(self.token_terms)

    def per_token(self, stats: TokenStats, step: Int[Array, ""]) -> Float[Array, "*tokens"]:
        """Returns the weighted sum of the token terms, one number per token."""
        if not self.token_terms:
            return jnp.zeros_like(stats.nll)
        first, *rest = (
            _times(term.weight_at(step), term.loss.per_token(stats)) for term in self.token_terms
        )
        return sum(rest, start=first)

    def initial_state(self) -> LossState:
        """Returns what the terms remember before the first step."""
        return {term.name: term.loss.initial_state() for term in self._remembering}

    def bound(self, state: LossState) -> Objective:
        """Returns the objective with what its terms remember."""
        terms = tuple(
            dataclasses.replace(term, loss=term.loss.bound(state[term.name]))
            if term.name in state
            else term
            for term in self.token_terms
        )
        return dataclasses.replace(self, token_terms=terms)

    def counted(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> LossState:
        """Returns what the tokens of a step add to what the terms remember."""
        return {term.name: term.loss.count(stats, weights) for term in self._remembering}

    def advanced(self, state: LossState, counts: LossState, step: Int[Array, ""]) -> LossState:
        """Returns what the terms remember after a step."""
        return {
            term.name: term.loss.advanced(state[term.name], counts[term.name], step)
            for term in self._remembering
        }

    @property
    def _remembering(self) -> tuple[Term, ...]:
        return tuple(term for term in self.token_terms if isinstance(term.loss, PosCal))


def fields_read(terms: Sequence[Term]) -> tuple[str, ...]:
    """Returns the fields of `TokenStats` that some terms read."""
    return tuple(dict.fromkeys(field for term in terms for field in term.loss.fields))


def functionals_read(terms: Sequence[Term]) -> dict[str, Functional]:
    """Returns the functionals of the logits that some terms read, by name."""
    found: dict[str, Functional] = {}
    for term in terms:
        found.update(term.loss.functionals)
    return found


def _times(weight: Any, values: Array) -> Array:
    """Returns weight * values; a weight of exactly 1 leaves them as they are."""
    return values if isinstance(weight, float) and weight == 1 else weight * values
