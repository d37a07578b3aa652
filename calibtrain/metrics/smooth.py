"""SmoothECE and the kernel-smoothed reliability curve: calibration without bins.

Both are computed from fine rows, cells of equal width (`histogram.fine_rows`), by linear binning:
the mass of each prediction is divided linearly between the two edges of its cell. That is exact,
because a cell keeps sum c, sum y, sum c^2 and sum c y. Smoothing by a Gaussian that is reflected at
0 and 1 is then a product with its Fourier transform on the circle of length 2.

The step h = 1/cells changes SmoothECE at a bandwidth sigma by at most
0.121 (h / sigma)^2 * mean |confidence - correct|: linear binning errs by h^2 / 8 * |K''|, and the
integral of |K''| over the line is 4 phi(1) / sigma^2.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from calibtrain.metrics.arguments import AnyArray, predictions, require_number, require_whole
from calibtrain.metrics.histogram import CELLS, fine_rows
from calibtrain.metrics.ordered import BOTH, CONFIDENCE, CORRECT, SQUARE, WEIGHT

MOST_POINTS = 10**6
"""The largest number of points of a curve; the grid has 4,801."""
BISECTIONS = 24
"""Halvings of (0, 1] in the search for the bandwidth, which is then known to 6e-8."""


def smooth_calibration_error(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    sigma: float | None = None,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """Returns SmoothECE, the fixed point smECE_sigma = sigma.

    smECE_sigma is the integral over t in [0, 1] of |sum_i w_i K_sigma(t, c_i) (c_i - y_i)| / W,
    where K is a Gaussian reflected at 0 and 1. It falls as sigma grows. At the fixed point, the
    bandwidth is as large as the error that it shows.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        sigma: a bandwidth, at least 2 / 4800, at which smECE is returned; default: the fixed point.
        weights: weight of each prediction; default 1.

    Returns:
        The error in [0, 1], without a unit. Where the fixed point lies below the smallest bandwidth
        of the grid, 2 / 4800, it is smECE at that bandwidth. The grid errs by at most 5e-5 at a
        bandwidth of 0.01.

    Raises:
        ValueError: for a bandwidth that is not allowed; otherwise as `expected_calibration_error`
            does.

    Example:
        >>> print(f"{smooth_calibration_error([0.9, 0.9], [1, 0]):.3f}")
        0.400

    References:
        Blasiok & Nakkiran, "Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing", ICLR
        2024.
    """
    p = predictions(confidence, correct, weights)
    rows = fine_rows(p)
    if sigma is None:
        return smooth_error(rows, p.xp)[0]
    return smooth_error_at(rows, _bandwidth(sigma), p.xp)


def _bandwidth(sigma: Any) -> float:
    """Returns a bandwidth, checked to be one that the grid resolves."""
    number = require_number("sigma", sigma)
    if not 2 / CELLS <= number <= 1:
        raise ValueError(f"sigma: {sigma} is not allowed; in [{2 / CELLS:g}, 1]")
    return number


def smooth_error(rows: Float[AnyArray, "cells 5"], xp: Any = np) -> tuple[Any, Any]:
    """Returns SmoothECE of fine rows, and the bandwidth at which it was taken."""
    return smooth_error_of(residual_nodes(rows, xp), xp)


def smooth_error_of(nodes: Float[AnyArray, " cells+1"], xp: Any = np) -> tuple[Any, Any]:
    """Returns `smooth_error`, from `residual_nodes`."""
    gap = _transform(nodes, xp)
    least = 2 / (nodes.shape[0] - 1)

    def halve(_: Any, bracket: Any) -> Any:
        low, high = bracket
        middle = (low + high) / 2
        above = _error(gap, middle, xp) > middle
        return xp.where(above, middle, low), xp.where(above, high, middle)

    bracket = (xp.asarray(least * 1.0), xp.asarray(1.0))
    if xp is np:
        for step in range(BISECTIONS):
            bracket = halve(step, bracket)
    else:
        bracket = jax.lax.fori_loop(0, BISECTIONS, halve, bracket)
    sigma = bracket[0]
    return _error(gap, sigma, xp), sigma


def smooth_error_at(rows: Float[AnyArray, "cells 5"], sigma: float, xp: Any = np) -> Any:
    """Returns smECE of fine rows at one bandwidth."""
    return _error(_transform(residual_nodes(rows, xp), xp), sigma, xp)


def smooth_error_bound(rows: Float[np.ndarray, "cells 5"], sigma: float) -> float:
    """Returns how far smECE at a bandwidth may be from that of the predictions themselves."""
    absolute = rows[:, CONFIDENCE] + rows[:, CORRECT] - 2 * rows[:, BOTH]
    mean = float(absolute.sum() / rows[:, WEIGHT].sum())
    curvature = 4 * math.exp(-0.5) / math.sqrt(2 * math.pi)
    return curvature / 8 * mean / (rows.shape[0] * sigma) ** 2


def smooth_reliability(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    sigma: float | None = None,
    points: int = 101,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[np.ndarray, "points 3"]:
    """Returns the smoothed reliability diagram: accuracy and density as functions of confidence.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        sigma: bandwidth, at least 2 / 4800; default: that of SmoothECE, as the authors'
            `relplot` draws it.
        points: number of confidences, spread evenly over [0, 1], at which the curve is given.
        weights: weight of each prediction; default 1.

    Returns:
        One row per point: confidence, accuracy (NaN where the density is below 1e-12) and density
        of the confidences.

    Raises:
        ValueError: inside `jax.jit`, where it cannot be computed; otherwise as
            `smooth_calibration_error` does.

    Example:
        >>> print(smooth_reliability([0.25, 0.75, 0.75], [0, 1, 0], sigma=0.01, points=5)[1, :2])
        [0.25 0.  ]
    """
    p = predictions(confidence, correct, weights)
    if p.xp is jnp:
        raise ValueError("confidence: is traced; the curve is read on the host, not inside jax.jit")
    points = require_whole("points", points, 1, MOST_POINTS)
    rows = fine_rows(p)
    width = smooth_error(rows)[1] if sigma is None else _bandwidth(sigma)
    return smooth_curve(rows, width, points)


def smooth_curve(
    rows: Float[np.ndarray, "cells 5"], sigma: float, points: int
) -> Float[np.ndarray, "points 3"]:
    """Returns `smooth_reliability` of fine rows."""
    masses = _linear_binning(rows, WEIGHT, CONFIDENCE), _linear_binning(rows, CORRECT, BOTH)
    density, right = (_smoothed(_transform(mass, np), sigma, np) for mass in masses)
    grid, at = np.linspace(0, 1, len(density)), np.linspace(0, 1, points)
    density, right = np.interp(at, grid, density), np.interp(at, grid, right)
    known = density > 1e-12
    accuracy = np.where(known, right / np.where(known, density, 1.0), np.nan)
    return np.stack([at, np.where(known, np.clip(accuracy, 0, 1), np.nan), density], axis=-1)


def residual_density(
    rows: Float[np.ndarray, "*batch cells 5"], sigma: float
) -> Float[np.ndarray, "*batch cells+1"]:
    """Returns the smoothed residual at the edges of cells: smECE is its `mean_absolute`."""
    return _smoothed(_transform(residual_nodes(rows), np), sigma, np)


def mean_absolute(density: Float[AnyArray, "*batch cells+1"], xp: Any = np) -> Any:
    """Returns the integral over [0, 1] of |density|, by the trapezoidal rule on the edges."""
    density = xp.abs(density)
    ends = (density[..., 0] + density[..., -1]) / 2
    return (xp.sum(density, -1) - ends) / (density.shape[-1] - 1)


def residual_nodes(
    rows: Float[AnyArray, "*batch cells 5"], xp: Any = np
) -> Float[AnyArray, "*batch cells+1"]:
    """Returns (confidence - correctness) / weight of all, binned linearly to the edges of cells."""
    confidence = _linear_binning(rows, CONFIDENCE, SQUARE, xp)
    correct = _linear_binning(rows, CORRECT, BOTH, xp)
    return (confidence - correct) / xp.sum(rows[..., WEIGHT], -1)[..., None]


def _linear_binning(rows: Any, value: int, moment: int, xp: Any = np) -> Any:
    """Returns the mass of a value v at the edges: of cell i, the share c * cells - i at edge i + 1.

    `value` and `moment` are the columns of sum v and sum v c.
    """
    cells = rows.shape[-2]
    right = rows[..., moment] * cells - rows[..., value] * xp.arange(cells)
    left = rows[..., value] - right
    zero = xp.zeros_like(right[..., :1])
    return xp.concatenate([left, zero], -1) + xp.concatenate([zero, right], -1)


def _transform(mass: Any, xp: Any) -> Any:
    """Returns the Fourier transform of point masses on the edges and of their reflections."""
    # an edge at 0 or 1 is its own reflection, and counts twice
    inner = mass[..., 1:-1]
    both = [2 * mass[..., :1], inner, 2 * mass[..., -1:], inner[..., ::-1]]
    return xp.fft.rfft(xp.concatenate(both, -1))


def _smoothed(transform: Any, sigma: Any, xp: Any) -> Any:
    """Returns the smoothed density at the edges."""
    cells = transform.shape[-1] - 1
    decay = xp.exp(-0.5 * (sigma * math.pi * xp.arange(cells + 1)) ** 2)
    return xp.fft.irfft(transform * decay, 2 * cells)[..., : cells + 1] * cells


def _error(transform: Any, sigma: Any, xp: Any) -> Any:
    return mean_absolute(_smoothed(transform, sigma, xp), xp)
