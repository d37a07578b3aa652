"""A text under a head as a row of a comparison: figures, paired intervals and signatures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

import calibtrain
from calibtrain.errors import require_finite
from calibtrain.evaluation.event_figures import compute_results
from calibtrain.evaluation.event_sums import EventSums, ScoredEvents
from calibtrain.evaluation.figure_intervals import (
    FEWER_RESAMPLES,
    FEWEST_DOCUMENTS,
    interval_fields,
    plain_figures,
)
from calibtrain.evaluation.signatures import signatures
from calibtrain.evaluation.token_scores import FIELDS, event_columns
from calibtrain.fitting.hidden_states import HiddenBatch
from calibtrain.metrics.ece_intervals import calibration_error_difference
from calibtrain.metrics.error_intervals import smooth_error_difference
from calibtrain.metrics.intervals import Interval
from calibtrain.metrics.jackknife import student_difference
from calibtrain.metrics.signature import Signature
from calibtrain.models import Params, TemperatureHead
from calibtrain.posthoc.hidden_text import HiddenText
from calibtrain.runs.loading import SavedRun
from calibtrain.scoring.scorer import one_behind

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
"""What a row tells of a head; the nll stands beside every error of calibration."""
COMPARED = ("nll", "bits_per_byte", "ece", "smooth_calibration_error", "signed_gap")
"""Figures that are compared with those of no head, by an interval of the difference."""

ERRORS_COVER = (
    "intervals of the differences of ECE and SmoothECE are approximate: they covered 87 to 100 % "
    "of simulated texts where 95 % is meant"
)
"""A note for readers of the differences."""


def score_text(
    text: HiddenText,
    head: TemperatureHead | None,
    params: Params | None,
    bins: int,
    documents: Int[np.ndarray, " chosen"] | None = None,
) -> EventSums:
    """Returns sums over the tokens of a text under a head.

    Args:
        text: its hidden states.
        head: the head; None means the model as it is.
        params: parameters of the head.
        bins: number of equal-width bins of the ECE.
        documents: those of the text that count; None means all.
    """
    chosen = text.documents if documents is None else documents
    states = text.states if documents is None else text.states.only(documents)
    score = text.output_layer.scorer(head, FIELDS)
    sums = EventSums(text.store.document_bytes, chosen, [], bins)

    def columns(batch: HiddenBatch) -> Any:
        return event_columns(score(params, batch))

    for batch, found in one_behind(columns, states.batches()):
        counted = batch.weights > 0
        values = found[counted]
        require_finite({"nll": float(values[:, 0].sum())}, 0)
        sums.add(ScoredEvents(batch.documents[counted], values))
    return sums


def figures(scored: EventSums) -> dict[str, Any]:
    """Returns `FIGURES`, the numbers of tokens and bytes, and intervals of the main figures."""
    results = compute_results(scored, thorough=False)
    kept = ("tokens", "bytes", *FIGURES)
    intervals = results["intervals"]
    return {
        **{name: results[name] for name in kept},
        "intervals": {name: intervals[name] for name in FIGURES if name in intervals},
    }


def differences(scored: EventSums, plain: EventSums) -> dict[str, dict[str, Any]]:
    """Returns `COMPARED` of a head minus those of none, on the same documents; empty for few."""
    blocks = scored.blocks, plain.blocks
    if len(blocks[1]) < FEWEST_DOCUMENTS:
        return {}
    found: dict[str, Interval] = {
        name: student_difference(blocks[0], blocks[1], of)
        for name, of in plain_figures(blocks[1]).items()
        if name in COMPARED
    }
    found["ece"] = calibration_error_difference(
        scored.tables, plain.tables, resamples=FEWER_RESAMPLES
    )
    found["smooth_calibration_error"] = smooth_error_difference(
        scored.coarse, plain.coarse, draws=FEWER_RESAMPLES
    )
    return {
        name: {"difference": found[name].estimate, **interval_fields(found[name])}
        for name in COMPARED
        if name in found
    }


def signature_of(
    saved: SavedRun, corpus: str | None, bins: int, temperature: float | str = 1.0
) -> Signature:
    """Returns the signature of token figures on a text, under a temperature or a named head."""
    return Signature(
        corpus=saved.corpus(corpus).provenance.content_hash,
        tokenizer=saved.tokenizer.hash,
        version=calibtrain.__version__,
        bins=bins,
        temperature=temperature,
    )


def comparison_row(
    name: str, scored: EventSums, plain: EventSums | None, about: Signature, **facts: Any
) -> Mapping[str, Any]:
    """Returns a head's row of a comparison, each figure with its signature.

    Args:
        name: the head's name.
        scored: the text under the head.
        plain: the text under no head; None for the row of no head, which has no differences.
        about: the signature of a figure with equal-width bins.
        facts: further entries of the row.
    """
    own = figures(scored)
    found = {"head": name, **facts, **own, "signatures": signatures(own, about)}
    return found if plain is None else {**found, "differences": differences(scored, plain)}
