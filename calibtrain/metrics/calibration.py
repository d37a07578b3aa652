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
from calibtrain.metrics.ordered import cumulative, equal_mass, ordered_rows

Scheme = Literal["width", "mass"]


def bin_edges(bins: int, precision: Any = np.float32) -> Float[np.ndarray, " bins+1"]:
    """Returns the edges of equal-width bins over [0, 1]: i / bins for i = 0..bins.

    Args:
        bins: number of bins.
        precision: floating-point type of the confidences. Edges are rounded to it, so that a
            confidence of i / bins lies on its edge exactly; a bin is closed on the right.

    Raises:
        ValueError: for a number of bins or a type that is not allowed.

    Example:
        >>> print(bin_edges(4))
        [0.   0.25 0.5  0.75 1.  ]
    """
    bins = require_bins("bins", bins)
    if not jnp.issubdtype(precision, jnp.floating):
        raise ValueError(f"precision: {precision} is not allowed; a floating point type")
    edges = (np.arange(bins + 1) / bins).astype(precision)
    return edges.astype(np.promote_types(precision, np.float32))


def bin_index(
    confidence: Float[AnyArray, " n"], edges: Float[AnyArray, " bins+1"]
) -> Int[AnyArray, " n"]:
    """Returns the bin i of each confidence: edges[i] < confidence <= edges[i + 1].

    Runs inside `jax.jit`.
    """
    return jnp.searchsorted(jnp.asarray(edges)[1:-1], confidence, side="left")


def sums_by_row(
    values: Float[AnyArray, "n columns"], row: Int[AnyArray, " n"], rows: int
) -> Float[AnyArray, "rows columns"]:
    """Returns the sums of the values of each row. Runs inside `jax.jit`, in float32."""
    # A product with a one-hot matrix, not a scatter: it partitions over devices and is
    # deterministic. `highest` keeps accelerators from rounding the sums to bfloat16.
    member = jax.nn.one_hot(row, rows, dtype=jnp.float32)
    return jnp.matmul(member.T, values, precision="highest")


def sums_by_bin(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    index: Int[AnyArray, " n"],
    rows: int,
    weights: Float[AnyArray, " n"],
) -> Float[AnyArray, "rows 3"]:
    """Returns per row (bin) the sums of weight, weighted confidence and weighted correctness.

    Tables of parts of the data add up to the table of the whole. Runs inside `jax.jit`.
    """
    values = jnp.stack([jnp.ones_like(weights), confidence, correct], axis=-1)
    # a selection, not a product alone: NaN * 0 would be NaN where the weight is 0
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
    """Returns the table behind a reliability diagram.

    Arguments and errors are those of `expected_calibration_error`.

    Returns:
        Per bin the sums of weight, weighted confidence and weighted correctness. An empty bin is a
        row of zeros.

    Example:
        >>> print(reliability_table([0.2, 0.9, 0.9], [0, 1, 0], bins=2))
        [[1.  0.2 0. ]
         [2.  1.8 1. ]]
    """
    return binned(predictions(confidence, correct, weights), bins, scheme)


def binned(p: Predictions, bins: int, scheme: str) -> Float[AnyArray, "bins 3"]:
    """Returns the `reliability_table` of checked predictions."""
    bins = require_bins("bins", bins)
    require_one_of("scheme", scheme, ("width", "mass"))
    if scheme == "mass":
        return equal_mass(cumulative(ordered_rows(p), p.xp), p.xp.arange(bins + 1) / bins, p.xp)
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
    """Returns the expected calibration error: ECE = sum_b w_b / W |accuracy_b - confidence_b|.

    w_b, accuracy_b and confidence_b are the weight, accuracy and mean confidence of bin b, W is the
    weight of all predictions.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        bins: number of bins.
        scheme: `width` for bins of equal width over [0, 1]; `mass` for bins that each hold the
            same weight of the predictions in order of confidence, one across an edge being split.
        weights: weight of each prediction; default 1.

    Returns:
        The error in [0, 1], without a unit: 0 for perfect calibration.

    Raises:
        ValueError: for lengths that differ, no predictions, an unknown scheme, and, outside of
            `jax.jit`, for values that are not finite or out of range.

    Example:
        >>> print(f"{expected_calibration_error([0.9, 0.9], [1, 0]):.4f}")
        0.4000
        >>> print(f"{expected_calibration_error([0.2, 0.9], [0, 1], weights=[3, 1]):.4f}")
        0.1750

    References:
        Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
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
    """Returns the maximum calibration error: MCE = max_b |accuracy_b - confidence_b|.

    The maximum is over the bins that are not empty. Arguments and errors are those of
    `expected_calibration_error`.

    Returns:
        The error in [0, 1], without a unit.

    Example:
        >>> print(f"{maximum_calibration_error([0.2, 0.9, 0.9], [0, 1, 0]):.4f}")
        0.4000

    References:
        Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
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
    """Returns the average calibration error: ACE = mean_b |accuracy_b - confidence_b|.

    The mean is over the bins that are not empty, each counting the same. Arguments and errors are
    those of `expected_calibration_error`.

    Returns:
        The error in [0, 1], without a unit.

    Example:
        >>> print(f"{average_calibration_error([0.2, 0.9, 0.9], [0, 1, 0]):.4f}")
        0.3000

    References:
        Neumann et al., "Relaxed Softmax: Efficient Confidence Auto-Calibration for Safe Pedestrian
        Detection", NeurIPS workshop 2018.
    """
    p = predictions(confidence, correct, weights)
    table = binned(p, bins, scheme)
    return p.xp.sum(bin_gaps(table, p.xp)) / p.xp.sum(table[:, 0] > 0)


def bin_gaps(table: Float[AnyArray, "bins 3"], xp: Any = np) -> Float[AnyArray, " bins"]:
    """Returns |accuracy - confidence| of each bin; 0 for an empty one."""
    weight = table[..., 0]
    return xp.abs(table[..., 2] - table[..., 1]) / xp.where(weight > 0, weight, 1.0)


def table_error(table: Float[AnyArray, "*batch bins 3"]) -> Float[AnyArray, "*batch"]:
    """Returns the ECE of a reliability table, or of each of many."""
    return abs(table[..., 2] - table[..., 1]).sum(-1) / table[..., 0].sum(-1)


def signed_gap(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """Returns mean confidence minus accuracy, in [-1, 1]: positive for an over-confident model.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        weights: weight of each prediction; default 1.

    Raises:
        ValueError: as `expected_calibration_error` does.

    Example:
        >>> print(f"{signed_gap([0.9, 0.7], [1, 0]):.4f}")
        0.3000
    """
    p = predictions(confidence, correct, weights)
    return p.xp.sum(p.weights * (p.confidence - p.correct)) / p.xp.sum(p.weights)
