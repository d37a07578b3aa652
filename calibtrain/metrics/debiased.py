"""Calibration errors that correct or avoid the upward bias of binned estimates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from calibtrain.metrics.arguments import AnyArray, predictions, require_bins
from calibtrain.metrics.calibration import Scheme, binned, table_error
from calibtrain.metrics.ordered import WEIGHT, cumulative, equal_mass, ordered_rows


def debiased_calibration_error(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    bins: int = 15,
    scheme: Scheme = "mass",
    weights: Float[AnyArray, " n"] | None = None,
    squared: bool = False,
) -> Float[AnyArray, ""]:
    """Returns the debiased L2 calibration error.

    It is the root of sum_b n_b / N [(p_b - y_b)^2 - y_b (1 - y_b) / (n_b - 1)], where n_b, p_b and
    y_b are the number, mean confidence and accuracy of the predictions of bin b: the plug-in
    square less an unbiased estimate of what noise in y_b adds to it. A sum below 0 gives 0, as in
    the authors' package `uncertainty-calibration`.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        bins: number of bins; one with a single prediction or none adds nothing.
        scheme: `mass` as in the paper, or `width`.
        weights: how often each prediction was seen: n_b is their sum; default 1.
        squared: whether to return the sum itself, unclipped. It is unbiased, and negative about
            half of the time for a calibrated model.

    Returns:
        The error in [0, 1], without a unit.

    Raises:
        ValueError: as `expected_calibration_error` does.

    Example:
        >>> confidence, correct = np.full(10, 0.9), np.arange(10) < 5
        >>> print(f"{debiased_calibration_error(confidence, correct, bins=1):.4f}")
        0.3636

    References:
        Kumar et al., "Verified Uncertainty Calibration", NeurIPS 2019.
    """
    p = predictions(confidence, correct, weights)
    square = debiased_square(binned(p, bins, scheme), p.xp)
    return square if squared else p.xp.sqrt(p.xp.maximum(square, 0.0))


def debiased_square(table: Float[AnyArray, "bins 3"], xp: Any = np) -> Float[AnyArray, ""]:
    """Returns the debiased squared error of a reliability table of counts."""
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
    """Returns ECE_sweep: the ECE at the largest number of bins whose accuracies are monotone.

    Bins of equal mass are added one at a time, for as long as accuracy does not fall from any bin
    to the next; the ECE of the last such number of bins is returned.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        max_bins: the largest number of bins tried, and never more than the weight of all
            predictions (their number, by default). Where accuracy is monotone in 1,000 bins, more
            bins hardly change the ECE.
        weights: how often each prediction was seen; default 1.

    Returns:
        The error in [0, 1], without a unit.

    Raises:
        ValueError: as `expected_calibration_error` does.

    Example:
        >>> print(f"{sweep_calibration_error([0.2, 0.4, 0.6, 0.8], [0, 0, 1, 1]):.4f}")
        0.3000

    References:
        Roelofs et al., "Mitigating Bias in Calibration Error Estimation", AISTATS 2022.
    """
    max_bins = require_bins("max_bins", max_bins)
    return sweep_error(ordered_rows(predictions(confidence, correct, weights)), max_bins)[0]


def sweep_error(rows: Float[AnyArray, "rows columns"], max_bins: int) -> tuple[Any, Any]:
    """Returns ECE_sweep of rows in order of confidence, and its number of bins.

    A bin holds the weight of one prediction or more, so that rows of weight 0 change nothing.
    """
    xp = np if isinstance(rows, np.ndarray) else jnp
    sums = cumulative(rows, xp)
    # weights that are fractions add up to a whole number only within rounding
    limit = xp.clip(xp.floor(sums[-1, WEIGHT] * (1 + 1e-6)), 1, max_bins)
    # rounding of the cumulative sums may lower an accuracy that did not fall by this much
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
        table = tables(bins, max_bins)  # rows from `bins` on are empty
        accuracy = table[:, 2] / jnp.where(table[:, WEIGHT] > 0, table[:, WEIGHT], 1.0)
        falls = jnp.diff(accuracy) < -slack
        return ~jnp.any(falls & (jnp.arange(1, max_bins) < bins))

    bins = jax.lax.while_loop(
        lambda bins: (bins < limit) & is_monotone(bins + 1), lambda bins: bins + 1, 1
    )
    return table_error(tables(bins, max_bins)), bins
