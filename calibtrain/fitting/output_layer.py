"""A frozen model's output layer: the statistics of hidden states, with and without a head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jax import Array

from calibtrain.fitting.hidden_states import HiddenBatch, HiddenStates
from calibtrain.models import Params, TemperatureHead
from calibtrain.readout import TokenStats
from calibtrain.scoring.scorer import ModelOutput, Scorer, one_behind

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float, Int

Score = Callable[[Params | None, HiddenBatch], TokenStats]
"""(parameters of a head, batch) -> statistics of the batch's tokens."""


@dataclasses.dataclass(frozen=True)
class OutputLayer:
    """What turns last hidden states into logits.

    Attributes:
        unembedding: has one column per vocabulary entry, and may have more that only pad it.
        vocab_size: number of vocabulary entries.
        soft_cap: caps the logits before they are divided by a temperature.
    """

    unembedding: Float[Array, "width vocab"]
    vocab_size: int
    soft_cap: float | None = None

    def scorer(self, head: TemperatureHead | None, fields: Sequence[str]) -> Score:
        """Returns a compiled function that scores a batch of hidden states.

        Args:
            head: supplies the temperatures; None leaves the logits as they are.
            fields: the statistics that are computed.
        """

        def output(params: tuple[Params | None, Array], batch: HiddenBatch) -> ModelOutput:
            return output_at_tokens(head, *params, batch)

        scorer = Scorer(output, vocab_size=self.vocab_size, soft_cap=self.soft_cap, fields=fields)
        return lambda params, batch: scorer((params, self.unembedding), batch)


def output_at_tokens(
    head: TemperatureHead | None, params: Params | None, unembedding: Array, batch: HiddenBatch
) -> ModelOutput:
    """Returns what `readout` multiplies for the tokens of a batch that count.

    A head reads whole rows, since a temperature may depend on the tokens before.
    """
    hidden, columns, temperature = batch.hidden, unembedding, None
    if head is not None and params is not None:
        hidden, columns, temperature = head.apply(params, hidden, unembedding, batch.segments)
    hidden = hidden.reshape(-1, hidden.shape[-1])[batch.index]
    if temperature is not None:
        temperature = temperature.reshape(-1)[batch.index]
    return hidden, columns, temperature


def mean_over(
    score: Score,
    params: Params | None,
    states: HiddenStates,
    per_token: Callable[[TokenStats], Any] = lambda stats: stats.nll,
    rows: Int[np.ndarray, " some"] | None = None,
) -> float:
    """Returns the mean over tokens of a number per token, summed in float64.

    Args:
        score: from `OutputLayer.scorer`, with the fields that `per_token` reads.
        params: parameters of the scorer's head.
        states: hidden states of the text.
        per_token: returns the number, from statistics; the nll in nats by default.
        rows: indices of the rows that are read; None means all.
    """

    def numbers(batch: HiddenBatch) -> Any:
        return per_token(score(params, batch))

    total, count = 0.0, 0.0
    for batch, values in one_behind(numbers, states.batches(rows)):
        total += float(np.asarray(values, np.float64) @ batch.weights)
        count += float(batch.weights.sum())
    return total / count
