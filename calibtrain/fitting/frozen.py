"""A frozen model's end: its unembedding, and the statistics of blocks of states under a head."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax import Array

from calibtrain.fitting.states import Block, States
from calibtrain.models import Head, Params
from calibtrain.readout import Functional, TokenStats, readout

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Frozen:
    """What turns last hidden states into logits.

    Attributes:
        unembedding: of the model.
        vocab_size: entries that are no padding.
        soft_cap: of the logits, before they are divided.
    """

    unembedding: Float[Array, "width vocab"]
    vocab_size: int
    soft_cap: float | None = None

    def scorer(
        self,
        head: Head | None,
        fields: Sequence[str],
        functionals: Mapping[str, Functional] | None = None,
    ) -> Callable[[Params | None, Block], TokenStats]:
        """Compiled: parameters of the head and a block -> statistics of the block's tokens."""

        def score(params: Params | None, unembedding: Array, block: Block) -> TokenStats:
            hidden, columns, temperature = at_tokens(head, params, unembedding, block)
            return readout(
                hidden,
                columns,
                block.labels,
                temperature=temperature,
                vocab_size=self.vocab_size,
                soft_cap=self.soft_cap,
                fields=fields,
                functionals=functionals,
            )

        compiled = jax.jit(score)
        return lambda params, block: compiled(params, self.unembedding, block)


def at_tokens(
    head: Head | None, params: Params | None, unembedding: Array, block: Block
) -> tuple[Array, Array, Any]:
    """Hidden states and temperature (None: there is none) of a block's tokens; the unembedding."""
    hidden, columns, temperature = block.hidden, unembedding, None
    if head is not None and params is not None:
        hidden, columns, temperature = head.apply(params, hidden, unembedding, block.segments)
    hidden = hidden.reshape(-1, hidden.shape[-1])[block.index]
    if temperature is not None:
        temperature = temperature.reshape(-1)[block.index]
    return hidden, columns, temperature


def mean_over(
    score: Callable[[Params | None, Block], TokenStats],
    params: Params | None,
    states: States,
    per_token: Callable[[TokenStats], Any] = lambda stats: stats.nll,
    rows: np.ndarray | None = None,
) -> float:
    """The mean of a number a token, summed in float64, over all tokens or those of some rows.

    Args:
        score: from `Frozen.scorer`, with the fields that are read.
        params: of its head.
        states: of the text.
        per_token: from statistics to the number; default: the nll, in nats.
        rows: numbers of the rows; none: all.
    """
    total, count = 0.0, 0.0
    pending: tuple[Any, Block] | None = None
    for block in itertools.chain(states.blocks(rows), [None]):  # read one behind the device
        found = None if block is None else (per_token(score(params, block)), block)
        if pending is not None:
            values, weights = np.asarray(pending[0], np.float64), pending[1].weights
            total += float(values @ weights)
            count += float(weights.sum())
        pending = found
    return total / count
