"""Intervals of an evaluation's figures, of 95 %, from a bootstrap over documents.

Ratios of sums have BCa intervals; errors, which noise can only raise, have a test inverted (see
`metrics.resampling`). Errors that need a fine table of confidence are resampled from a coarser one,
of `tally.COARSE` cells.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from calibtrain.evaluation.tally import Sums
from calibtrain.metrics.calibration import table_error
from calibtrain.metrics.debiased import debiased_square, sweep_error
from calibtrain.metrics.ece_intervals import calibration_error_interval
from calibtrain.metrics.intervals import Interval
from calibtrain.metrics.ordered import WEIGHT, equal_mass, running
from calibtrain.metrics.ranking import largest_running_gap, risk_area, roc_area
from calibtrain.metrics.resampling import bootstrap_figures, error_interval
from calibtrain.metrics.smooth import smooth_error

RESAMPLES = 1000
FEWER_RESAMPLES = 400
"""For what is many (groups of strata) or takes long (errors of a table of cells)."""
_SWEEP_BINS = 100  # in resamples of coarse cells

N, NLL, ENTROPY, CONFIDENCE, CORRECT, BRIER, BYTES = range(7)
"""Columns of a block's sums."""
_LOG2 = math.log(2)


def plain_figures(blocks: Float[np.ndarray, "blocks 7"]) -> dict[str, Callable[[Any], Any]]:
    """Figures that are ratios of sums, as functions of sums [batch, 7]; those that exist."""

    def mean(column: int, factor: float = 1.0) -> Callable[[Any], Any]:
        return lambda s: factor * s[:, column] / s[:, N]

    found = {
        "nll": mean(NLL),
        "accuracy": mean(CORRECT),
        "mean_confidence": mean(CONFIDENCE),
        "signed_gap": lambda s: (s[:, CONFIDENCE] - s[:, CORRECT]) / s[:, N],
    }
    in_bytes = (blocks[:, BYTES] > 0).all()
    if in_bytes:
        found["bits_per_byte"] = lambda s: s[:, NLL] / _LOG2 / s[:, BYTES]
    if not np.isnan(blocks[:, BRIER]).all():
        found["multiclass_brier"] = mean(BRIER)
    if not np.isnan(blocks[:, ENTROPY]).all():
        found["entropy_rate"] = mean(ENTROPY)
        found["entropy_calibration_error"] = lambda s: np.abs(s[:, ENTROPY] - s[:, NLL]) / s[:, N]
        if in_bytes:
            found["entropy_bits_per_byte"] = lambda s: s[:, ENTROPY] / _LOG2 / s[:, BYTES]
    return found


def there(sums: Float[np.ndarray, "blocks columns"]) -> Float[np.ndarray, "blocks columns"]:
    """The sums with 0 in columns that events do not have, which no figure reads: for resampling."""
    return np.where(np.isnan(sums).all(axis=0), 0.0, sums)


def main_intervals(
    sums: Sums, blocks: Float[np.ndarray, "blocks 7"], resamples: int
) -> dict[str, Interval]:
    if len(blocks) < 2:
        return {}
    statistics = plain_figures(blocks)
    statistics.pop("entropy_calibration_error", None)  # an error: see error_intervals
    return {
        **bootstrap_figures(there(blocks), statistics, resamples=resamples),
        "ece": calibration_error_interval(sums.tables, resamples=resamples),
    }


def error_intervals(sums: Sums) -> dict[str, Interval]:
    """Intervals of what is read from a table of confidence, and of the entropy's error."""
    if len(sums.coarse) < 2:
        return {}
    bins = sums.tables.shape[1]
    found = {
        name: error_interval(sums.coarse, functools.partial(_over_batch, error, bins))
        for name, error in _ERRORS.items()
    }
    found |= {
        name: error_interval(sums.tables, error)
        for name, error in (
            ("maximum_calibration_error", lambda t: _gaps(t).max(-1)),
            ("average_calibration_error", _mean_gap),
        )
    }
    # |entropy - nll| is the error of a table of one row whose gap is theirs
    entropy = sums.blocks[:, None, [N, ENTROPY, NLL]]
    if not np.isnan(entropy).all(axis=0).any():
        found["entropy_calibration_error"] = error_interval(
            entropy, table_error, resamples=RESAMPLES
        )
    right = sums.blocks[:, CORRECT].sum()
    rows = sums.coarse.reshape(len(sums.coarse), -1)
    statistics = {"area_under_risk_coverage": risk_area}
    if 0 < right < sums.blocks[:, N].sum():
        statistics["area_under_roc"] = roc_area
    ranked = {
        name: functools.partial(_over_rows, area, sums.coarse.shape[1])
        for name, area in statistics.items()
    }
    return found | bootstrap_figures(rows, {**ranked, "brier": _brier}, resamples=FEWER_RESAMPLES)


def _mass_table(rows: Any, bins: int) -> Any:
    return equal_mass(running(rows, jnp), jnp.arange(bins + 1) / bins, jnp)


_ERRORS: Mapping[str, Callable[[Any, int], Any]] = {
    "ece_mass": lambda rows, bins: table_error(_mass_table(rows, bins)),
    "debiased_calibration_error": lambda rows, bins: jnp.sqrt(
        jnp.maximum(debiased_square(_mass_table(rows, bins), jnp), 0.0)
    ),
    "sweep_calibration_error": lambda rows, bins: sweep_error(rows, _SWEEP_BINS, jnp)[0],
    "smooth_calibration_error": lambda rows, bins: smooth_error(rows, jnp)[0],
    "kolmogorov_smirnov_error": lambda rows, bins: largest_running_gap(rows, jnp),
}
"""Errors of a table of cells of confidence."""


@functools.partial(jax.jit, static_argnums=(0, 1))
def _vectorised(error: Any, bins: int, tables: Any) -> Any:
    return jax.vmap(lambda rows: error(rows, bins))(tables)


def _over_batch(error: Any, bins: int, tables: Float[np.ndarray, "batch cells 5"]) -> Any:
    # as shares, which float32 holds better than counts
    shares = tables / tables[:, :, WEIGHT].sum(-1)[:, None, None]
    if error is _ERRORS["debiased_calibration_error"]:  # which needs the counts
        shares = tables
    return np.asarray(_vectorised(error, bins, jnp.asarray(shares, jnp.float32)), np.float64)


def _over_rows(area: Any, cells: int, sums: Float[np.ndarray, "batch columns"]) -> Any:
    tables = sums.reshape(len(sums), cells, -1)
    return _over_batch(_AREAS[area], 1, tables)


_AREAS = {area: (lambda rows, bins, area=area: area(rows, jnp)) for area in (risk_area, roc_area)}


def _brier(sums: Float[np.ndarray, "batch columns"]) -> Any:
    weight, _, correct, square, both = sums.reshape(len(sums), -1, 5).sum(1).T
    return (square - 2 * both + correct) / weight


def _gaps(tables: Float[np.ndarray, "batch bins columns"]) -> Any:
    weight = tables[..., 0]
    return np.abs(tables[..., 2] - tables[..., 1]) / np.where(weight > 0, weight, np.inf)


def _mean_gap(tables: Float[np.ndarray, "batch bins columns"]) -> Any:
    return _gaps(tables).sum(-1) / (tables[..., 0] > 0).sum(-1)


def shown(interval: Interval) -> dict[str, Any]:
    return {"lower": interval.lower, "upper": interval.upper, "method": interval.method}
