"""What a step should cost: analytic FLOPs and bytes moved; and measured times fitted to them."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from calibtrain.config import ModelConfig
from calibtrain.models.size import count_parameters, training_flops
from calibtrain.readout.chunks import default_chunk

ALLOWED = 0.2
"""Relative deviation up to which a measured time is said to grow as its cost does."""


def step_flops(config: ModelConfig, vocab: int, rows: int, context: int) -> float:
    """Analytic FLOPs of a training step."""
    return training_flops(config, vocab, context) * rows * context


def step_bytes(
    config: ModelConfig, vocab: int, rows: int, context: int, platform: str
) -> dict[str, float]:
    """Bytes that a transformer's float32 step reads and writes, where products are not what costs.

    Every operation that the compiler does not fuse is counted as reading its operands and writing
    its results once, wherever they lie: in memory or in a cache.

    Returns:
        state: 12 passes over the parameters: the gradient is written, read for the norm that
            clips and the norm that is reported, read and written as it is divided by the weight;
            AdamW reads gradient, two moments and parameter and writes the latter three.
        unembedding: 6 passes a chunk of tokens: read by both products, and its gradient written
            as the chunk's part, which is read, added to what is read, and written.
        logits: 7 passes: written; read for maximum, sum and argmax; their gradient written, and
            read by both products.
        scores: 12 passes over those of attention, causal: 5 forward, 7 backward.
    """
    tokens = rows * context
    chunks = -(-tokens // default_chunk(vocab, platform))
    seen = (context + 1) / 2
    return {
        "state": 12 * 4.0 * count_parameters(config, vocab).total,
        "unembedding": 6 * 4.0 * chunks * vocab * config.width,
        "logits": 7 * 4.0 * tokens * vocab,
        "scores": 12 * 4.0 * tokens * seen * config.heads * config.depth,
    }


@dataclasses.dataclass(frozen=True)
class Fit:
    """seconds = coefficients . terms, and how far each measured time is from it.

    Attributes:
        coefficients: seconds, seconds a FLOP, and (where bytes were given) seconds a byte.
        deviations: measured over fitted, minus 1.
    """

    coefficients: tuple[float, ...]
    deviations: tuple[float, ...]

    @property
    def largest(self) -> float:
        """The largest deviation, either way."""
        return max(map(abs, self.deviations))


def fit(seconds: Sequence[float], *terms: Sequence[float]) -> Fit:
    """Least squares of relative errors, no coefficient negative: a constant, and one a term.

    With so few terms every choice of those that are not zero is tried.
    """
    measured = np.asarray(seconds, float)
    columns = np.stack([np.ones(len(measured)), *map(np.asarray, terms)], axis=1)
    relative = columns / measured[:, None]
    scale = np.abs(relative).max(axis=0)
    best, least = None, np.inf
    for size in range(1, columns.shape[1] + 1):
        for chosen in itertools.combinations(range(columns.shape[1]), size):
            part = relative[:, chosen] / scale[list(chosen)]
            found, *_ = np.linalg.lstsq(part, np.ones(len(measured)), rcond=None)
            error = float(np.sum((part @ found - 1) ** 2))
            if (found >= 0).all() and error < least * (1 - 1e-9):
                best, least = np.zeros(columns.shape[1]), error
                best[list(chosen)] = found / scale[list(chosen)]
    assert best is not None  # the constant alone is always possible
    deviations = measured / (columns @ best) - 1
    return Fit(tuple(map(float, best)), tuple(map(float, deviations)))
