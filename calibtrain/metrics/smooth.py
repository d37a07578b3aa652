"""SmoothECE and the kernel-smoothed reliability curve: calibration without bins.

Everything is read from fine rows, cells of equal width (`histogram.fine_rows`). Because a cell
keeps sum c, sum y, sum c^2 and sum c y, each prediction can be shared out, linearly, between the
two edges of its cell, exactly as if it were at hand. Smoothing by a Gaussian that is reflected at
0 and 1 is then a product with its Fourier transform on the circle of length 2.

The step h = 1/cells changes SmoothECE at a bandwidth sigma by at most
0.121 (h / sigma)^2 * mean |confidence - correct|: linear sharing errs by h^2 / 8 * |K''|, and the
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
"""Points of a curve at most: the grid has 4,801."""
BISECTIONS = 24
"""Halvings of (0, 1] on the way to the bandwidth: found to 6e-8."""


def smooth_calibration_error(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    sigma: float | None = None,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """SmoothECE, in [0, 1] (Blasiok & Nakkiran, ICLR 2024, "Smooth ECE").

    smECE_sigma is the integral over t in [0, 1] of |sum_i w_i K_sigma(t, c_i) (c_i - y_i)| / W,
    with K a Gaussian reflected at 0 and 1. It falls as sigma grows; SmoothECE is its fixed point,
    smECE_sigma = sigma, the bandwidth at which detail and bias are of one size.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        sigma: a bandwidth to use instead, at least 2 / 4800.
        weights: weight of each prediction; default 1.

    Returns:
        The error; where the fixed point lies below the smallest bandwidth of the grid, 2 / 4800,
        smECE at that bandwidth. The grid errs as the file's docstring says: by 5e-5 at 0.01.
    """
    p = predictions(confidence, correct, weights)
    rows = fine_rows(p)
    if sigma is None:
        return smooth_error(rows, p.xp)[0]
    return smooth_error_at(rows, _bandwidth(sigma), p.xp)


def _bandwidth(sigma: Any) -> float:
    """A bandwidth that the grid can tell from none."""
    number = require_number("sigma", sigma)
    if not 2 / CELLS <= number <= 1:
        raise ValueError(f"sigma: {sigma} is not allowed; in [{2 / CELLS:g}, 1]")
    return number


def smooth_error(rows: Float[AnyArray, "cells 5"], xp: Any = np) -> tuple[Any, Any]:
    """SmoothECE of fine rows, and the bandwidth at which it was taken."""
    return smooth_error_of(residual_nodes(rows, xp), xp)


def smooth_error_of(nodes: Float[AnyArray, " cells+1"], xp: Any = np) -> tuple[Any, Any]:
    """`smooth_error` of `residual_nodes`."""
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
    """smECE at one bandwidth of fine rows."""
    return _error(_transform(residual_nodes(rows, xp), xp), sigma, xp)


def smooth_error_bound(rows: Float[np.ndarray, "cells 5"], sigma: float) -> float:
    """How far smECE at a bandwidth may be from that of the predictions themselves."""
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
    """The smoothed reliability diagram: accuracy as a function of confidence, and their density.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0.
        sigma: bandwidth, at least 2 / 4800; default: that of SmoothECE, as the authors'
            `relplot` draws it.
        points: confidences, spread evenly over [0, 1], at which the curve is given.
        weights: weight of each prediction; default 1.

    Returns:
        A row a point: confidence, accuracy (NaN where the density is below 1e-12, so that there
        is nothing to tell), and density of the confidences. On the host only.
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
    """`smooth_reliability` of fine rows."""
    masses = _shared_out(rows, WEIGHT, CONFIDENCE), _shared_out(rows, CORRECT, BOTH)
    density, right = (_smoothed(_transform(mass, np), sigma, np) for mass in masses)
    grid, at = np.linspace(0, 1, len(density)), np.linspace(0, 1, points)
    density, right = np.interp(at, grid, density), np.interp(at, grid, right)
    known = density > 1e-12
    accuracy = np.where(known, right / np.where(known, density, 1.0), np.nan)
    return np.stack([at, np.where(known, np.clip(accuracy, 0, 1), np.nan), density], axis=-1)


def residual_density(
    rows: Float[np.ndarray, "*batch cells 5"], sigma: float
) -> Float[np.ndarray, "*batch cells+1"]:
    """The smoothed residual at the edges of cells, whose `mean_absolute` is smECE at sigma."""
    return _smoothed(_transform(residual_nodes(rows), np), sigma, np)


def mean_absolute(density: Float[AnyArray, "*batch cells+1"], xp: Any = np) -> Any:
    """Integral over [0, 1] of the absolute value of a density at the edges, by trapezoids."""
    density = xp.abs(density)
    ends = (density[..., 0] + density[..., -1]) / 2
    return (xp.sum(density, -1) - ends) / (density.shape[-1] - 1)


def residual_nodes(
    rows: Float[AnyArray, "*batch cells 5"], xp: Any = np
) -> Float[AnyArray, "*batch cells+1"]:
    """confidence - correctness, over all the weight, shared out to the edges of the cells."""
    confidence = _shared_out(rows, CONFIDENCE, SQUARE, xp)
    correct = _shared_out(rows, CORRECT, BOTH, xp)
    return (confidence - correct) / xp.sum(rows[..., WEIGHT], -1)[..., None]


def _shared_out(rows: Any, value: int, moment: int, xp: Any = np) -> Any:
    """A value's mass on the edges: of sum v and sum v c, the share (c cells - i) to edge i + 1."""
    cells = rows.shape[-2]
    right = rows[..., moment] * cells - rows[..., value] * xp.arange(cells)
    left = rows[..., value] - right
    zero = xp.zeros_like(right[..., :1])
    return xp.concatenate([left, zero], -1) + xp.concatenate([zero, right], -1)


def _transform(mass: Any, xp: Any) -> Any:
    """Fourier transform of point masses on the edges and of their reflections."""
    # an edge at 0 or 1 is its own reflection, and counts twice
    inner = mass[..., 1:-1]
    both = [2 * mass[..., :1], inner, 2 * mass[..., -1:], inner[..., ::-1]]
    return xp.fft.rfft(xp.concatenate(both, -1))


def _smoothed(transform: Any, sigma: Any, xp: Any) -> Any:
    """The smoothed density at the edges."""
    cells = transform.shape[-1] - 1
    decay = xp.exp(-0.5 * (sigma * math.pi * xp.arange(cells + 1)) ** 2)
    return xp.fft.irfft(transform * decay, 2 * cells)[..., : cells + 1] * cells


def _error(transform: Any, sigma: Any, xp: Any) -> Any:
    return mean_absolute(_smoothed(transform, sigma, xp), xp)
