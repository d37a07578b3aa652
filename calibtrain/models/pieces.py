"""Rows of a batch are read a few at a time where that is faster: on a CPU.

A CPU then finds more of a layer's results in its caches, and the kernel has fewer new pages to
clear. Each piece of a batch has equally many rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
from jax import Array

from calibtrain.models import Network, Params

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Int

LEAST_PIECE = {"cpu": 640}
"""Tokens of a piece, at least, on platforms where cutting a batch pays."""


def pieces_of(rows: int, context: int, platform: str, together: int = 1) -> int:
    """Returns how many pieces suit a platform: the most that are not too small, and divide `rows`.

    Args:
        rows: of one device.
        context: tokens of each row.
        platform: of the device ("cpu", "gpu", "tpu").
        together: rows that one piece must hold, at least.
    """
    if platform not in LEAST_PIECE:
        return 1
    least = max(LEAST_PIECE[platform], together * context)
    return max(
        pieces
        for pieces in range(1, rows + 1)
        if rows % pieces == 0 and (pieces == 1 or rows // pieces * context >= least)
    )


def apply_in_pieces(
    network: Network,
    params: Params,
    tokens: Int[Array, "batch time"],
    segments: Int[Array, "batch time"],
    platform: str,
) -> tuple[Array, Array, Array | None]:
    """Returns what `Network.apply` returns, up to rounding, computed in `pieces_of` the rows.

    It is for passes without a gradient. An LSTM reads all rows at once: each of its tokens needs
    the one before, so that rows are all that its products have.
    """
    rows, context = tokens.shape
    pieces = pieces_of(rows, context, platform)
    if pieces == 1 or network.config.kind == "lstm":
        return network.apply(params, tokens, segments)

    def apply(piece: tuple[Array, Array]) -> tuple[Array, Array | None]:
        hidden, _, temperature = network.apply(params, *piece)
        return hidden, temperature

    def split(x: Array) -> Array:
        return x.reshape(pieces, -1, *x.shape[1:])

    states: Any = jax.lax.map(apply, (split(tokens), split(segments)))
    hidden, temperature = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), states)
    return hidden, network.unembedding(params), temperature
