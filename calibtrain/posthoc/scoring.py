"""A text's states under a head as the sums that figures and paired intervals are read from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

import calibtrain
from calibtrain.evaluation.event_figures import compute_results
from calibtrain.evaluation.event_sums import EventSums
from calibtrain.evaluation.events import ScoredEvents
from calibtrain.evaluation.figure_intervals import (
    FEWER_RESAMPLES,
    RESAMPLES,
    interval_fields,
    plain_figures,
)
from calibtrain.evaluation.saved_run import SavedRun
from calibtrain.evaluation.signatures import signatures
from calibtrain.evaluation.tokens import FIELDS, event_columns
from calibtrain.metrics.ece_intervals import calibration_error_difference
from calibtrain.metrics.intervals import Interval, bootstrap, bootstrap_difference
from calibtrain.metrics.signature import Signature
from calibtrain.metrics.smooth import mean_absolute, residual_density, smooth_error
from calibtrain.models import Head, Params
from calibtrain.posthoc.hidden import HiddenText
from calibtrain.training.finite import require_finite

FIGURES = (
    "nll",
    "bits_per_byte",
    "ece",
    "smooth_calibration_error",
    "signed_gap",
    "accuracy",
    "mean_confidence",
    "entropy_rate",
)
"""What is told of each head; the nll stands beside every error of calibration."""
COMPARED = ("nll", "bits_per_byte", "ece", "smooth_calibration_error", "signed_gap")
"""Figures whose difference to no head has an interval."""


def score_text(
    text: HiddenText,
    head: Head | None,
    params: Params | None,
    bins: int,
    documents: Int[np.ndarray, " chosen"] | None = None,
) -> EventSums:
    """Score a text under a head.

    Args:
        text: whose states.
        head: none: the model as it is.
        params: of the head.
        bins: of the ECE.
        documents: of the text that count; none: all of it.
    """
    chosen = text.documents if documents is None else documents
    states = text.states if documents is None else text.states.only(documents)
    score = text.frozen.scorer(head, FIELDS)
    sums = EventSums(text.store.document_bytes, chosen, [], bins)
    for block in states.blocks():
        counted = block.weights > 0
        values = np.asarray(event_columns(score(params, block)))[counted]
        require_finite({"nll": float(values[:, 0].sum())}, 0)
        sums.add(ScoredEvents(block.documents[counted], values))
    return sums


def figures(scored: EventSums) -> dict[str, Any]:
    """`FIGURES`, tokens and bytes, and intervals of the main ones."""
    results = compute_results(scored, thorough=False)
    kept = ("tokens", "bytes", *FIGURES)
    intervals = results["intervals"]
    return {
        **{name: results[name] for name in kept},
        "intervals": {name: intervals[name] for name in FIGURES if name in intervals},
    }


def differences(scored: EventSums, plain: EventSums) -> dict[str, dict[str, Any]]:
    """`COMPARED`, of a head less those of none, on the same documents drawn together.

    The difference of SmoothECE is that of the errors at each one's own bandwidth, which is kept.
    """
    blocks = scored.blocks, plain.blocks
    if len(blocks[1]) < 2:
        return {}
    found: dict[str, Interval] = {
        name: bootstrap_difference(blocks[0], blocks[1], of, resamples=RESAMPLES)
        for name, of in plain_figures(blocks[1]).items()
        if name in COMPARED
    }
    found["ece"] = calibration_error_difference(
        scored.tables, plain.tables, resamples=FEWER_RESAMPLES
    )
    found["smooth_calibration_error"] = _smooth_difference(scored, plain)
    return {
        name: {"difference": found[name].estimate, **interval_fields(found[name])}
        for name in COMPARED
        if name in found
    }


def _smooth_difference(scored: EventSums, plain: EventSums) -> Interval:
    cells = [scored.coarse, plain.coarse]
    sigmas = [float(smooth_error(each.sum(0))[1]) for each in cells]
    cut = cells[0].shape[-1]

    def difference(drawn: Any) -> Any:
        parts = drawn[..., :cut], drawn[..., cut:]
        mine, theirs = (
            mean_absolute(residual_density(part, sigma))
            for part, sigma in zip(parts, sigmas, strict=True)
        )
        return mine - theirs

    both = np.concatenate(cells, axis=-1)
    return bootstrap(both, difference, resamples=FEWER_RESAMPLES, method="basic")


def signature_of(
    saved: SavedRun, corpus: str | None, bins: int, temperature: float | str = 1.0
) -> Signature:
    """How figures of a run's tokens are made on a text under a temperature, or a head's name."""
    return Signature(
        corpus=saved.corpus(corpus).provenance.content_hash,
        tokenizer=saved.tokenizer.hash,
        version=calibtrain.__version__,
        bins=bins,
        temperature=temperature,
    )


def row(
    name: str, scored: EventSums, plain: EventSums | None, about: Signature, **facts: Any
) -> Mapping[str, Any]:
    """A head's row of a comparison, each figure with its signature.

    Args:
        name: of the head.
        scored: the text under it.
        plain: under none; None for the model as it is, which differs from nothing.
        about: of a figure of equal-width bins.
        facts: what else there is to say of the head.
    """
    own = figures(scored)
    found = {"head": name, **facts, **own, "signatures": signatures(own, about)}
    return found if plain is None else {**found, "differences": differences(scored, plain)}
