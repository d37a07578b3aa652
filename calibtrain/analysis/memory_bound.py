"""How much of the past a model uses: a bound on its memory, as a function of arrays.

I(tau) = I(W_t ; W_{<t-tau} | W_{t-tau..t-1}) is what the words before the last tau still say of the
next one. For any model Q that sees the last tau words alone, and w drawn from P,
I(tau) <= E[log P(w_t | all) - log Q(w_t | last tau)], so that the mean over generations is an upper
bound; it is the tighter, the better Q is.

References:
    Braverman et al., "Calibration, Entropy Rates, and Memory in Language Models", ICML 2020, 5.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.analysis.entropy_rate import figure


def memory_bound(
    whole: Float[np.ndarray, " positions"],
    limited: Float[np.ndarray, " positions"],
    sizes: Int[np.ndarray, " positions"],
    documents: Int[np.ndarray, " positions"],
) -> dict[str, Any]:
    """Returns the bound in nats per token and in bits per byte, with intervals over documents.

    Args:
        whole: log-probability of each token given all that the model sees, in nats.
        limited: the same given its last tokens alone.
        sizes: bytes of each token.
        documents: the document of each token.

    Example:
        >>> whole, limited = np.log([0.5, 0.5, 0.25]), np.log([0.25, 0.5, 0.25])
        >>> found = memory_bound(whole, limited, np.array([1, 1, 1]), np.array([0, 0, 1]))
        >>> round(found["bits_per_byte"]["estimate"], 3)
        0.333
    """
    _, place = np.unique(documents, return_inverse=True)
    columns = (np.ones(len(place)), sizes, np.asarray(whole, np.float64) - limited)
    sums = np.stack([np.bincount(place, column) for column in columns], axis=-1)
    return {
        "nats_per_token": figure(sums, lambda s: s[:, 2] / s[:, 0]),
        "bits_per_byte": figure(sums, lambda s: s[:, 2] / s[:, 1] / math.log(2)),
    }


def lengths(longest: int) -> list[int]:
    """Returns 1, 2, 4, ... up to the longest, which is the last of them.

    Example:
        >>> lengths(6)
        [1, 2, 4, 6]
    """
    found = [1 << power for power in range(longest.bit_length()) if 1 << power < longest]
    return [*found, longest]


def eligible(
    starts: Sequence[int], ends: Sequence[int], history: int, count: int, seed: int
) -> list[tuple[int, int]]:
    """Returns positions that are drawn evenly from those with enough tokens before them.

    All lengths are measured at the same positions, so that a curve is no effect of which these are.

    Args:
        starts: number of the first token of each text that counts (0 is the document start).
        ends: number of tokens of each text, the document start included.
        history: tokens that must lie before a position.
        count: how many are drawn, at most.
        seed: of the draw.
    """
    slots = [
        (text, slot)
        for text, (start, end) in enumerate(zip(starts, ends, strict=True))
        for slot in range(max(start, history), end)
    ]
    order = np.random.default_rng(seed).permutation(len(slots))[:count]
    return [slots[index] for index in sorted(order.tolist())]
