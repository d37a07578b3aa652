"""Binned calibration errors, and the reliability table behind them.

A bin of equal width is open on the left and closed on the right, as in Guo et al. (ICML 2017),
except that the first also holds a confidence of exactly 0: no confidence in [0, 1] falls outside or
into an extra bin. A bin of equal mass holds exactly its share of the weight (`ordered`).
"""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from calibtrain.metrics.arguments import (
    AnyArray,
    Predictions,
    predictions,
    require_bins,
    require_one_of,
)
from calibtrain.metrics.ordered import equal_mass, ordered_rows, running

Scheme = Literal["width", "mass"]


def bin_edges(bins: int, precision: Any = np.float32) -> Float[np.ndarray, " bins+1"]:
    """Edges of equal-width bins over [0, 1]: i / bins, rounded to the confidences' own type.

    So a confidence of i / bins lies on its edge exactly, and the bin is closed there.
    """
    bins = require_bins("bins", bins)
    if not jnp.issubdtype(precision, jnp.floating):
        raise ValueError(f"precision: {precision} is not allowed; a floating point type")
    edges = (np.arange(bins + 1) / bins).astype(precision)
    return edges.astype(np.promote_types(precision, np.float32))


def bin_index(
    confidence: Float[AnyArray, " n"], edges: Float[AnyArray, " bins+1"]
) -> Int[AnyArray, " n"]:
    """The bin of each confidence: edges[i] < confidence <= edges[i + 1]. Runs inside `jax.jit`."""
    return jnp.searchsorted(jnp.asarray(edges)[1:-1], confidence, side="left")


def sums_by_row(
    values: Float[AnyArray, "n columns"], row: Int[AnyArray, " n"], rows: int
) -> Float[AnyArray, "rows columns"]:
    """Sums of the values of each row. Runs inside `jax.jit`, in float32."""
    # A product with a one-hot matrix, not a scatter: it partitions over devices and is the same
    # every time. `highest` keeps accelerators from rounding the sums to bfloat16.
    member = jax.nn.one_hot(row, rows, dtype=jnp.float32)
    return jnp.matmul(member.T, values, precision="highest")


def sums_by_bin(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    index: Int[AnyArray, " n"],
    rows: int,
    weights: Float[AnyArray, " n"],
) -> Float[AnyArray, "rows 3"]:
    """Per row (bin): sum of weights, of weighted confidence, and of weighted correctness.

    Tables of parts of the data add up to the table of the whole. Runs inside `jax.jit`.
    """
    values = jnp.stack([jnp.ones_like(weights), confidence, correct], axis=-1)
    # a selection, not only a product: what does not count may hold anything, NaN included
    values = jnp.where(weights[:, None] > 0, values * weights[:, None], 0.0)
    return sums_by_row(values, index, rows)


def reliability_table(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    bins: int = 15,
    scheme: Scheme = "width",
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, "bins 3"]:
    """Per bin: sum of weights, of weighted confidence, and of weighted correctness.

    Arguments and errors as for `expected_calibration_error`. An empty bin is a row of zeros.
    """
    return binned(predictions(confidence, correct, weights), bins, scheme)


def binned(p: Predictions, bins: int, scheme: str) -> Float[AnyArray, "bins 3"]:
    """`reliability_table` of predictions that are known to make sense."""
    bins = require_bins("bins", bins)
    require_one_of("scheme", scheme, ("width", "mass"))
    if scheme == "mass":
        return equal_mass(running(ordered_rows(p), p.xp), p.xp.arange(bins + 1) / bins, p.xp)
    edges = bin_edges(bins, p.precision)
    if p.xp is jnp:
        return sums_by_bin(p.confidence, p.correct, bin_index(p.confidence, edges), bins, p.weights)
    index = np.searchsorted(edges[1:-1], p.confidence, side="left")
    values = (p.weights, p.weights * p.confidence, p.weights * p.correct)
    return np.stack([np.bincount(index, value, bins) for value in values], axis=-1)


def expected_calibration_error(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    bins: int = 15,
    scheme: Scheme = "width",
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """ECE = sum_b w_b / W * |accuracy_b - confidence_b|, in [0, 1] (Guo et al., ICML 2017).

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        bins: number of bins.
        scheme: `width` for bins of equal width over [0, 1]; `mass` for bins that each hold the
            same weight of the predictions in order of confidence, one across an edge being split.
        weights: weight of each prediction; default 1.

    Raises:
        ValueError: for lengths that differ, no predictions, an unknown scheme, and, outside of
            `jax.jit`, for values that are not finite or out of range.

    Example:
        >>> expected_calibration_error(jnp.array([0.9, 0.9]), jnp.array([1.0, 0.0]))  # 0.4
    """
    return table_error(binned(predictions(confidence, correct, weights), bins, scheme))


def maximum_calibration_error(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    bins: int = 15,
    scheme: Scheme = "width",
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """MCE: the largest |accuracy_b - confidence_b| of the bins that hold anything, in [0, 1].

    Arguments and errors as for `expected_calibration_error` (Naeini et al., AAAI 2015).
    """
    p = predictions(confidence, correct, weights)
    return p.xp.max(bin_gaps(binned(p, bins, scheme), p.xp))


def average_calibration_error(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    bins: int = 15,
    scheme: Scheme = "width",
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """ACE: the plain mean of |accuracy_b - confidence_b| over the bins that hold anything.

    Arguments and errors as for `expected_calibration_error` (Neumann et al., 2018).
    """
    p = predictions(confidence, correct, weights)
    table = binned(p, bins, scheme)
    return p.xp.sum(bin_gaps(table, p.xp)) / p.xp.sum(table[:, 0] > 0)


def bin_gaps(table: Float[AnyArray, "bins 3"], xp: Any = np) -> Float[AnyArray, " bins"]:
    """|accuracy - confidence| of each bin; 0 for an empty one."""
    weight = table[..., 0]
    return xp.abs(table[..., 2] - table[..., 1]) / xp.where(weight > 0, weight, 1.0)


def table_error(table: Float[AnyArray, "*batch bins 3"]) -> Float[AnyArray, "*batch"]:
    """The ECE of a reliability table, or of many."""
    return abs(table[..., 2] - table[..., 1]).sum(-1) / table[..., 0].sum(-1)


def signed_gap(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """Mean confidence minus accuracy, in [-1, 1]: positive is over-confident."""
    p = predictions(confidence, correct, weights)
    return p.xp.sum(p.weights * (p.confidence - p.correct)) / p.xp.sum(p.weights)
