"""What an evaluation reads of each token, in one of two programs.

The thorough one also reads the likeliest token and the probability of each frequency decile. It is
a program of its own, compiled where it is used, so that evaluations in the midst of training, which
do not report these, do not take longer.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from calibtrain.data.batches.windows import WindowBatch
from calibtrain.evaluation.event_sums import COLUMNS, ScoredEvents
from calibtrain.evaluation.frequency import decile_columns
from calibtrain.losses import Brier
from calibtrain.metrics.mass import group_mass
from calibtrain.models import Network
from calibtrain.parallel.mesh import Layout
from calibtrain.readout import TokenStats
from calibtrain.scoring.scorer import Scorer, network_output

FIELDS = ("nll", "log_confidence", "correct", "entropy", "sum_squares")
"""What is asked of `readout`."""
VALUES, PREDICTED, MASS = "values", "predicted", "mass"
"""Names of the scores of a batch: `event_sums.COLUMNS`, the id of the likeliest token, and the
probabilities of the deciles. The last two are in thorough scores only."""


def event_columns(stats: TokenStats) -> Float[Array, "*tokens columns"]:
    """`event_sums.COLUMNS` of tokens, from statistics with `FIELDS`."""
    brier = Brier().per_token(stats)
    return jnp.stack([stats.nll, stats.entropy, stats.confidence, stats.correct, brier], axis=-1)


def token_scorer(network: Network, *, layout: Layout | None, chunk: int | None) -> Scorer:
    """Returns what scores batches of tokens; the scores are named `VALUES`."""
    return Scorer(
        network_output(network, layout),
        **network.reading,
        fields=FIELDS,
        result=lambda stats, batch: {VALUES: event_columns(stats)},
        chunk=chunk,
        layout=layout,
    )


def thorough_scorer(
    network: Network,
    deciles: Int[np.ndarray, " vocab"],
    *,
    layout: Layout | None,
    chunk: int | None,
) -> Scorer:
    """Returns what scores batches of tokens; the scores are named `VALUES`, `PREDICTED`, `MASS`.

    Args:
        network: the model.
        deciles: frequency decile 0..9 of each vocabulary entry.
        layout: of the devices that share the work.
        chunk: tokens whose logits are held at once.
    """

    def scores(stats: TokenStats, batch: Any) -> dict[str, Array]:
        values = event_columns(stats)
        return {VALUES: values, PREDICTED: stats.predicted, MASS: stats.extra[MASS]}

    return Scorer(
        network_output(network, layout),
        **network.reading,
        fields=(*FIELDS, PREDICTED),
        functionals={MASS: group_mass(deciles)},
        result=scores,
        chunk=chunk,
        layout=layout,
    )


def scored_tokens(
    scores: Mapping[str, np.ndarray], batch: WindowBatch, deciles: Int[np.ndarray, " vocab"]
) -> ScoredEvents:
    """Returns the events that count in a batch.

    Args:
        scores: of the tokens that count, from one of the two programs.
        batch: what was scored.
        deciles: frequency decile 0..9 of each vocabulary entry.
    """
    counted, values = batch.weights > 0, scores[VALUES]
    decile, predicted, further = deciles[batch.labels[counted]], None, None
    if MASS in scores:
        predicted = deciles[scores[PREDICTED]]
        confidence = values[:, COLUMNS.index("confidence")]
        further = decile_columns(scores[MASS], confidence, decile, predicted)
    return ScoredEvents(
        document=batch.documents[counted],
        values=values,
        before=batch.before[counted],
        decile=decile,
        predicted=predicted,
        further=further,
    )
