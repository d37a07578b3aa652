"""Calibration of every probability that a model gives, not only of the largest.

It takes a pass of its own over the text, because it sorts every entry's probability of every token
into bins: more work than the whole evaluation beside it. So it is made only where it is asked for.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from calibtrain.data.batches.windows import EvaluationWindows, WindowBatch
from calibtrain.evaluation.result import Evaluation
from calibtrain.metrics.vocabulary import VocabularyTable
from calibtrain.models import Network, Params
from calibtrain.parallel.mesh import ROWS, Layout
from calibtrain.readout import accumulate
from calibtrain.scoring.scorer import combined, network_output, one_behind


def vocabulary_table(
    network: Network,
    params: Params,
    windows: EvaluationWindows,
    *,
    bins: int,
    temperature: float = 1.0,
    layout: Layout | None = None,
    chunk: int | None = None,
    check: Callable[[], None] = lambda: None,
) -> VocabularyTable:
    """Sums by vocabulary entry and bin of its probability, over the scored tokens.

    Args:
        network: the model.
        params: its parameters.
        windows: the text.
        bins: equal-width bins of probability.
        temperature: divides the logits.
        layout: the devices that share the rows; None means one device.
        chunk: tokens whose logits are held at once.
        check: called between batches; may raise to give up.
    """
    shared = layout if layout and layout.devices > 1 else None
    reduction = functools.partial(VocabularyTable.of, bins=bins, vocab_size=network.vocab_size)
    output = network_output(network, layout)

    def table_of(
        params: Params, batch: WindowBatch, temperature: Float[Array, ""] | None
    ) -> VocabularyTable:
        hidden, unembedding, own = output(params, batch)
        table, _ = accumulate(
            hidden,
            unembedding,
            batch.labels,
            batch.weights,
            reduction,
            temperature=combined(own, temperature),
            **network.reading,
            chunk=chunk,
        )
        return jax.lax.psum(table, ROWS) if shared else table

    if shared:
        table_of = shared.on_each_device(table_of, (P(), P(ROWS), P()), P())
    program = jax.jit(table_of)
    divisor = None if temperature == 1.0 else np.float32(temperature)

    def batches() -> Iterator[WindowBatch]:
        for index in range(len(windows)):
            check()
            yield windows[index]

    def sums(batch: WindowBatch) -> VocabularyTable:
        return program(params, shared.share_out(batch) if shared else batch, divisor)

    total = VocabularyTable(np.zeros((network.vocab_size, bins, 3)))
    for _, part in one_behind(sums, batches()):
        total = total.merge(part.exact())
    return total


def with_vocabulary_errors(evaluation: Evaluation, table: VocabularyTable) -> Evaluation:
    """An evaluation by tokens with Full-ECE and classwise ECE, and their signatures, added.

    Both are sums over the vocabulary per token, in [0, 2], so that they are of one size over
    vocabularies (`per="token"` in `metrics.vocabulary`).

    Args:
        evaluation: of tokens.
        table: of the same text, bins and temperature.
    """
    found: dict[str, Any] = {
        "full_calibration_error": float(table.full("token")),
        "classwise_calibration_error": float(table.classwise("token")),
    }
    signatures = evaluation.results["signatures"]
    made = signatures["ece"].replace("|conf:max|", "|conf:all|")
    signed = {"signatures": {**signatures, **dict.fromkeys(found, made)}}
    return dataclasses.replace(evaluation, results={**evaluation.results, **found, **signed})
