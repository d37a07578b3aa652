"""The terms of an objective from their configuration: every kind of loss by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from calibtrain import losses
from calibtrain.losses import BatchLoss, TokenLoss
from calibtrain.training.objective import Objective, Term

if TYPE_CHECKING:  # benchmarks run without it
    from calibtrain.config import AnyTerm, Config

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


def make_objective(
    terms: Sequence[AnyTerm],
    *,
    vocab_size: int,
    steps_per_epoch: float = 1.0,
    steps: float = math.inf,
) -> Objective:
    """Returns the objective of a configuration.

    Args:
        terms: `loss` of a configuration.
        vocab_size: of the model.
        steps_per_epoch: how many steps one pass over the training text takes.
        steps: of the run; a run shorter than an epoch counts as an epoch.
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
    """Returns what a run minimises: the terms of its loss, preferences, or candidates."""
    if config.finetune is not None and config.finetune.objective != "sft":
        tuned = config.finetune
        own: dict[str, BatchLoss] = {
            "dpo": losses.DPO(beta=tuned.beta),
            "softmax": losses.CandidateSoftmax(tuned.choices),
            "margin": losses.CandidateMargin(tuned.choices),
        }
        return Objective((), (Term(tuned.objective, own[tuned.objective]),))
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
