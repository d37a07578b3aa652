"""Several figures of the same resamples; and intervals of errors that cannot be below 0.

An error adds up, or takes the largest of, absolute values: noise can only raise it, so that the
percentiles of a bootstrap miss a small one always. `error_interval` inverts a test instead, for any
error that is a function of a table of confidence, as `calibration_error_interval` does for the ECE.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from calibtrain.metrics.intervals import Interval, Statistic, bootstrap, resampled_sums
from calibtrain.metrics.ordered import BOTH, CONFIDENCE, CORRECT, SQUARE, WEIGHT

TableError = Callable[[Float[np.ndarray, "batch rows columns"]], Float[np.ndarray, " batch"]]
"""Tables (columns as in `metrics.ordered`: 3 or 5) -> the error of each."""

STEPS = 14
"""Halvings on the way to an end of an interval: to a ten-thousandth of the estimate."""


def bootstrap_figures(
    sums: Float[np.ndarray, "documents columns"],
    statistics: Mapping[str, Statistic],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """`bootstrap` (BCa) of several figures of the same sums, by their names.

    Raises:
        ValueError: for fewer than two documents, or what is not finite.
    """
    return {
        name: bootstrap(sums, statistic, resamples=resamples, level=level, seed=seed)
        for name, statistic in statistics.items()
    }


def error_interval(
    tables: Float[np.ndarray, "documents rows columns"],
    error: TableError,
    *,
    resamples: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of an error that is a function of a table of confidence.

    The interval holds every error that could have led to the estimate: the gaps of all rows are
    scaled from 0 (a calibrated model) upwards, the noise of the resamples is added, and a scale is
    kept if the estimate lies between the tails of the errors that this makes. The lower end of a
    calibrated model is 0, and the estimate itself may lie above the upper end.

    Args:
        tables: a table a document; rows are bins or cells of confidence.
        error: of tables, >= 0, and growing with the gaps.
        resamples: number of resamples.
        level: of confidence.
        seed: of the draws.

    Raises:
        ValueError: for fewer than two documents.
    """
    if len(tables) < 2:
        raise ValueError(f"tables: of {len(tables)} documents; at least two are needed")
    whole = tables.sum(0)
    estimate = float(error(whole[None])[0])
    drawn = resampled_sums(tables, resamples=resamples, seed=seed)
    # as shares of the whole: that a resample has more events is no noise of its gaps
    drawn *= (whole[:, WEIGHT].sum() / drawn[:, :, WEIGHT].sum(-1))[:, None, None]

    def at(scale: float) -> Float[np.ndarray, " resamples"]:
        """Errors of a model whose gaps are so scaled, with the noise of the resamples."""
        moved = drawn.copy()
        moved[:, :, CORRECT] += (1 - scale) * (whole[:, CONFIDENCE] - whole[:, CORRECT])
        if moved.shape[2] > BOTH:
            moved[:, :, BOTH] += (1 - scale) * (whole[:, SQUARE] - whole[:, BOTH])
        return error(moved)

    def share_above(scale: float) -> float:
        return float((at(scale) >= estimate * (1 - 1e-6)).mean())

    tail = (1 - level) / 2
    errors = at(1.0)
    return Interval(
        estimate=estimate,
        lower=_scale_reaching(share_above, tail) * estimate,
        upper=_scale_reaching(share_above, 1 - tail) * estimate,
        level=level,
        method="inverted test",
        standard_error=float(errors.std(ddof=1)),
        bias=float(errors.mean()) - estimate,
    )


def _scale_reaching(share: Callable[[float], float], wanted: float) -> float:
    """The smallest scale at which the share, which rises with it, reaches what is wanted."""
    low, high = 0.0, 1.0
    if share(low) >= wanted:
        return 0.0
    while share(high) < wanted and high < 2**10:
        low, high = high, 2 * high
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if share(middle) >= wanted else (middle, high)
    return high
