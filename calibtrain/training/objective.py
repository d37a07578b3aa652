"""What a run minimises: the terms of its configuration, weighted as its step says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array

from calibtrain import losses
from calibtrain.losses import BatchLoss, PosCal, TokenLoss
from calibtrain.readout import Functional, TokenStats

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

    from calibtrain.config import AnyTerm, Config

LossState = dict[str, dict[str, Array]]
"""What terms remember from step to step, by name; most remember nothing."""

_KINDS: dict[str, Any] = {
    "avuc": losses.AvUC,
    "brier": losses.Brier,
    "cross_entropy": losses.CrossEntropy,
    "dca": losses.DCA,
    "dece": losses.DECE,
    "dual_focal": losses.DualFocal,
    "entropy_penalty": losses.EntropyPenalty,
    "flsd_53": losses.SampleDependentFocal,
    "focal": losses.Focal,
    "label_smoothing": losses.LabelSmoothing,
    "margin_smoothing": losses.MarginSmoothing,
    "mdca": losses.MDCA,
    "mmce": losses.MMCE,
    "poscal": losses.PosCal,
    "selective_smoothing": losses.SelectiveSmoothing,
    "soft_binned_ece": losses.SoftBinnedECE,
    "z_loss": losses.ZLoss,
}

_SCHEDULE = {"kind", "weight", "from_step", "ramp_steps"}


@dataclasses.dataclass(frozen=True)
class Term:
    """A loss in the sum.

    Attributes:
        name: its kind; with a number where a kind comes twice.
        loss: a `TokenLoss` or a `BatchLoss`.
        weight: the full one.
        from_step: before which it counts nothing.
        ramp_steps: over which its weight then rises.
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
        """The weight at a step; a plain number where it never changes."""
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
        """The weighted sum of the token terms."""
        if not self.token_terms:
            return jnp.zeros_like(stats.nll)
        first, *rest = (
            _times(term.weight_at(step), term.loss.per_token(stats)) for term in self.token_terms
        )
        return sum(rest, start=first)

    def initial_state(self) -> LossState:
        """What the terms remember before the first step."""
        return {term.name: term.loss.initial_state() for term in self._remembering}

    def bound(self, state: LossState) -> Objective:
        """The objective with what its terms remember."""
        terms = tuple(
            dataclasses.replace(term, loss=term.loss.bound(state[term.name]))
            if term.name in state
            else term
            for term in self.token_terms
        )
        return dataclasses.replace(self, token_terms=terms)

    def counted(self, stats: TokenStats, weights: Float[Array, "*tokens"]) -> LossState:
        """What the tokens of a step add to what the terms remember."""
        return {term.name: term.loss.count(stats, weights) for term in self._remembering}

    def advanced(self, state: LossState, counts: LossState, step: Int[Array, ""]) -> LossState:
        """What the terms remember after a step."""
        return {
            term.name: term.loss.advanced(state[term.name], counts[term.name], step)
            for term in self._remembering
        }

    @property
    def _remembering(self) -> tuple[Term, ...]:
        return tuple(term for term in self.token_terms if isinstance(term.loss, PosCal))


def make_objective(
    terms: Sequence[AnyTerm],
    *,
    vocab_size: int,
    steps_per_epoch: float = 1.0,
    steps: float = math.inf,
) -> Objective:
    """The objective of a configuration.

    Args:
        terms: `loss` of a configuration.
        vocab_size: of the model.
        steps_per_epoch: how many steps one pass over the training text takes.
        steps: of the run; one that is shorter than an epoch counts as one.
    """
    kinds = [term.kind for term in terms]
    made: list[Term] = []
    for index, term in enumerate(terms):
        twice = kinds.count(term.kind) > 1
        name = f"{term.kind}_{kinds[:index].count(term.kind) + 1}" if twice else term.kind
        options = term.model_dump(exclude=_SCHEDULE)
        loss = _make(term.kind, options, vocab_size, min(steps_per_epoch, steps))
        made.append(Term(name, loss, term.weight, term.from_step, term.ramp_steps))
    return Objective(
        tuple(term for term in made if isinstance(term.loss, TokenLoss)),
        tuple(term for term in made if isinstance(term.loss, BatchLoss)),
    )


def objective_of(
    config: Config, vocab_size: int, *, steps_per_epoch: float = 1.0, steps: float = math.inf
) -> Objective:
    """What a run minimises: the terms of its loss, or pairs' preferences."""
    if config.finetune is not None and config.finetune.objective == "dpo":
        return Objective((), (Term("dpo", losses.DPO(beta=config.finetune.beta)),))
    objective = make_objective(
        config.loss, vocab_size=vocab_size, steps_per_epoch=steps_per_epoch, steps=steps
    )
    if config.finetune is None:
        return objective
    # answers are a small part of their rows: evenly spaced slots would miss them
    everywhere = tuple(
        term
        if isinstance(term.loss, losses.MMCE)
        else dataclasses.replace(term, loss=dataclasses.replace(term.loss, tokens=None))
        for term in objective.batch_terms
    )
    return dataclasses.replace(objective, batch_terms=everywhere)


def _make(kind: str, options: Mapping[str, Any], vocab_size: int, epoch: float) -> Any:
    options = dict(options)
    if kind == "selective_smoothing" and options.pop("balanced"):
        return losses.BalancedSelectiveSmoothing(**options, tokens=None)
    if kind == "avuc":
        options["vocab_size"] = vocab_size
    if kind == "poscal":
        refreshes = options.pop("refreshes_per_epoch")
        options["refresh_every"] = max(1, round(epoch / refreshes))
    return _KINDS[kind](**options)


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
    """weight * values; a weight of exactly 1 leaves them as they are."""
    return values if isinstance(weight, float) and weight == 1 else weight * values
