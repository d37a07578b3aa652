"""Answers scored as a whole: the log-probability of each, given its prompt."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from calibtrain.data.batches.examples import Answer, lay_out, pad_rows
from calibtrain.data.batches.stream import Batch
from calibtrain.models import Network, Params
from calibtrain.readout import TokenStats
from calibtrain.scoring.scorer import Scorer, network_output


class AnswerScorer:
    """Scores answers under a network, so many rows at a time."""

    def __init__(self, network: Network, *, rows: int, context: int):
        """Args:
        network: the model.
        rows: answers that are scored at once.
        context: slots of a row; a prompt and its answer must fit.
        """
        self.rows, self.context = rows, context
        self._scorer = Scorer(
            network_output(network), **network.reading, fields=("nll",), result=_log_probability
        )

    def log_probabilities(
        self, params: Params, answers: Sequence[Answer]
    ) -> Float[np.ndarray, " answers"]:
        """Returns log p(answer and its end | prompt) of each answer, in nats."""
        batches = (
            pad_rows(lay_out(answers[first : first + self.rows], self.context), self.rows)
            for first in range(0, len(answers), self.rows)
        )
        found = [scores for _, scores in self._scorer.over(params, batches)]
        return np.concatenate(found)[: len(answers)]


def _log_probability(stats: TokenStats, batch: Batch) -> Float[Array, " rows"]:
    return -(stats.nll * batch.weights).sum(axis=-1)
