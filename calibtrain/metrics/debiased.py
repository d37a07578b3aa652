"""Calibration errors that correct, or avoid, the upward bias of binned estimates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from calibtrain.metrics.arguments import AnyArray, predictions, require_bins
from calibtrain.metrics.calibration import Scheme, binned, table_error
from calibtrain.metrics.ordered import WEIGHT, equal_mass, ordered_rows, running


def debiased_calibration_error(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    bins: int = 15,
    scheme: Scheme = "mass",
    weights: Float[AnyArray, " n"] | None = None,
    squared: bool = False,
) -> Float[AnyArray, ""]:
    """Debiased L2 calibration error (Kumar et al., NeurIPS 2019).

    sum_b n_b / N * [ (p_b - y_b)^2 - y_b (1 - y_b) / (n_b - 1) ]: the plug-in square less an
    unbiased estimate of what noise in y_b adds to it. Its root, after values below 0 are set to 0,
    is returned, as the authors' `uncertainty-calibration` does.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        bins: number of bins; one with a single prediction or none adds nothing.
        scheme: `mass` as in the paper, or `width`.
        weights: how often each prediction was seen: n_b is their sum; default 1.
        squared: return the sum itself, unclipped: unbiased, and negative about half the time for
            a calibrated model.
    """
    p = predictions(confidence, correct, weights)
    square = debiased_square(binned(p, bins, scheme), p.xp)
    return square if squared else p.xp.sqrt(p.xp.maximum(square, 0.0))


def debiased_square(table: Float[AnyArray, "bins 3"], xp: Any = np) -> Float[AnyArray, ""]:
    """The debiased squared error of a reliability table of counts."""
    count = table[:, 0]
    known = count > 1
    safe = xp.where(known, count, 2.0)
    accuracy = table[:, 2] / safe
    gap = (table[:, 1] - table[:, 2]) / safe
    terms = gap * gap - accuracy * (1 - accuracy) / (safe - 1)
    return xp.sum(xp.where(known, count * terms, 0.0)) / xp.sum(count)


def sweep_calibration_error(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    max_bins: int = 1000,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """ECE_sweep: ECE at the largest monotone number of bins (Roelofs et al., AISTATS 2022).

    Bins of equal mass are added one at a time for as long as accuracy does not fall from one bin to
    the next; the ECE of the last number for which that held is returned.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        max_bins: where to stop at the latest (also at n). Past it, where accuracy is monotone in
            1,000 bins, more bins hardly change the ECE.
        weights: weight of each prediction; default 1.
    """
    max_bins = require_bins("max_bins", max_bins)
    p = predictions(confidence, correct, weights)
    limit = min(max_bins, p.confidence.shape[0])
    return sweep_error(ordered_rows(p), limit, p.xp)[0]


def sweep_error(rows: Float[AnyArray, "rows columns"], limit: int, xp: Any = np) -> tuple[Any, Any]:
    """ECE_sweep of rows in order of confidence, and its number of bins."""
    sums = running(rows, xp)
    # what rounding of the running sums may take from an accuracy that did not fall
    slack = 1e-9 if xp is np else 1e-4

    def tables(bins: Any, edges: int) -> Any:
        return equal_mass(sums, xp.minimum(xp.arange(edges + 1) / bins, 1.0), xp)

    if xp is np:
        bins = 1
        while bins < limit:
            table = tables(bins + 1, bins + 1)
            if (np.diff(table[:, 2] / table[:, WEIGHT]) < -slack).any():
                break
            bins += 1
        return table_error(tables(bins, bins)), bins

    def is_monotone(bins: Any) -> Any:
        table = tables(bins, limit)  # rows from `bins` on are empty
        accuracy = table[:, 2] / jnp.where(table[:, WEIGHT] > 0, table[:, WEIGHT], 1.0)
        falls = jnp.diff(accuracy) < -slack
        return ~jnp.any(falls & (jnp.arange(1, limit) < bins))

    bins = jax.lax.while_loop(
        lambda bins: (bins < limit) & is_monotone(bins + 1), lambda bins: bins + 1, 1
    )
    return table_error(tables(bins, limit)), bins
