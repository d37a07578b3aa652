"""Predictions as rows in order of confidence, from which ranks and equal-mass bins are computed.

A row is one distinct confidence, or one cell of a fine histogram; its columns are sums over the
predictions in it. So no result depends on the order of predictions of one confidence, and a weight
of 2 is the same as two predictions.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from calibtrain.metrics.arguments import AnyArray, Predictions

WEIGHT, CONFIDENCE, CORRECT, SQUARE, BOTH = range(5)
"""Columns: sums of weight, of weighted confidence c and correctness y, of c^2 and of c * y."""


def columns(p: Predictions) -> Float[AnyArray, "n 5"]:
    """Returns the columns of each prediction."""
    c, y = p.confidence, p.correct
    return p.xp.stack([p.xp.ones_like(c), c, y, c * c, c * y], axis=-1) * p.weights[:, None]


def ordered_rows(p: Predictions) -> Float[AnyArray, "rows 5"]:
    """Returns one row per distinct confidence, rising; inside `jax.jit` rows of 0 fill up to n."""
    order = p.xp.argsort(p.confidence)
    confidence, values = p.confidence[order], columns(p)[order]
    if p.xp is np:
        starts = np.flatnonzero(np.r_[True, confidence[1:] != confidence[:-1]])
        return np.add.reduceat(values, starts, axis=0)
    row = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(confidence[1:] != confidence[:-1])])
    return jax.ops.segment_sum(
        values, row, num_segments=confidence.shape[0], indices_are_sorted=True
    )


def cumulative(rows: Float[AnyArray, "rows columns"], xp: Any) -> Float[AnyArray, "rows+1 columns"]:
    """Returns the cumulative sums of rows, beginning with 0."""
    return xp.concatenate([xp.zeros_like(rows[:1]), xp.cumsum(rows, axis=0)])


def equal_mass(
    sums: Float[AnyArray, "rows+1 columns"], shares: Float[AnyArray, " edges"], xp: Any
) -> Float[AnyArray, "edges-1 3"]:
    """Returns the table of bins that each hold exactly their share of the weight.

    A row across an edge is divided in proportion, so that bins hold equal mass whatever the number
    of predictions, their weights, and the ties between them.

    Args:
        sums: from `cumulative`.
        shares: edges of the bins as shares of the weight, rising from 0 to 1.
        xp: `numpy` or `jax.numpy`.
    """
    mass = sums[:, WEIGHT]
    edges = shares * mass[-1]
    at = [xp.interp(edges, mass, sums[:, column]) for column in (CONFIDENCE, CORRECT)]
    return xp.diff(xp.stack([edges, *at], axis=-1), axis=0)
