"""One fine histogram of confidence, from which every calibration metric is computed.

Each of 4,800 cells of equal width keeps five sums: 96 KB, however many predictions there are. A
metric computed from it is exact, or comes with a bound on its distance from the same metric of the
predictions themselves. Confidences are summed as their distances from the middle of their cell.
These are small, so that float32 loses about 1e-8 of their sums; it would lose 1e-5 of sums of
confidences.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from calibtrain.metrics.arguments import AnyArray, Predictions, counted, require_bins
from calibtrain.metrics.calibration import bin_edges, bin_index
from calibtrain.metrics.ordered import columns

CELLS = 4800
"""2^6 * 3 * 5^2: 10, 15, 16, 20, 25, 30, 50, 100, ... divide it, so that bins are whole cells."""

_AT_ONCE = 4096
"""Predictions whose one-hot matrices are held at once on a device: 6 MB."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConfidenceHistogram:
    """Sums over predictions by cell of confidence: a state that can be merged with others.

    Attributes:
        table: per cell (open on the left, closed on the right; the first holds 0 too) the sums of
            weight, distance d of the confidence from the middle of the cell, correctness y, d^2
            and d * y.

    Example:
        >>> state = ConfidenceHistogram.of(np.array([0.9, 0.9]), np.array([1.0, 0.0]))
        >>> print(state.exact().merge(state.exact()).table[:, 0].sum())
        4.0
    """

    table: Float[AnyArray, "cells 5"]

    @classmethod
    def of(
        cls,
        confidence: Float[AnyArray, "*tokens"],
        correct: Float[AnyArray, "*tokens"],
        weights: Float[AnyArray, "*tokens"] | None = None,
        *,
        cells: int = CELLS,
    ) -> "ConfidenceHistogram":
        """Returns the state of some predictions. Runs inside `jax.jit`, in float32.

        Args:
            confidence: probability given to each prediction, in [0, 1].
            correct: 1 where it was right, else 0.
            weights: weight of each prediction; default 1. Those of weight 0 may hold anything.
            cells: number of cells.

        Raises:
            ValueError: for shapes that differ, and, outside of `jax.jit`, for values of weight
                above 0 that are not in [0, 1].
        """
        cells = require_bins("cells", cells)
        fields, weights = counted({"confidence": confidence, "correct": correct}, weights, 0.0, 1.0)
        c, y, w = (a.astype(jnp.float32).reshape(-1) for a in (*fields.values(), weights))
        c, y = jnp.where(w > 0, c, 0.0), jnp.where(w > 0, y, 0.0)
        return cls(fine_table(Predictions(c, y, w, np.float32, jnp), cells))

    @classmethod
    def zero(cls, cells: int = CELLS) -> "ConfidenceHistogram":
        """Returns the state of no predictions."""
        return cls(jnp.zeros((require_bins("cells", cells), 5), jnp.float32))

    def merge(self, other: "ConfidenceHistogram") -> "ConfidenceHistogram":
        """Returns the state of both parts together."""
        return jax.tree.map(lambda a, b: a + b, self, other)

    def exact(self) -> "ConfidenceHistogram":
        """Returns the state on the host in float64, so that many can be merged without rounding."""
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self)

    def rows(self) -> Float[np.ndarray, "cells 5"]:
        """Returns the cells on the host as rows in order of confidence (columns: see `ordered`)."""
        return _rows(self.exact().table, np)


def fine_rows(p: Predictions, cells: int = CELLS) -> Float[AnyArray, "cells 5"]:
    """Returns `ConfidenceHistogram.rows` of checked predictions."""
    return _rows(fine_table(p, cells), p.xp)


def cell_middles(cells: int) -> Float[np.ndarray, " cells"]:
    """Returns the middles of the cells in float32: the host adds back what devices subtracted."""
    return ((np.arange(cells) + 0.5) / cells).astype(np.float32)


def _rows(table: Any, xp: Any) -> Any:
    middle = xp.asarray(cell_middles(table.shape[0]), table.dtype)
    weight, d, y, dd, dy = (table[:, column] for column in range(5))
    c = middle * weight + d
    return xp.stack([weight, c, y, middle * (c + d) + dd, middle * y + dy], axis=-1)


def fine_table(p: Predictions, cells: int) -> Float[AnyArray, "cells 5"]:
    """Returns the table of a `ConfidenceHistogram`, from checked predictions."""
    edges = bin_edges(cells, p.precision)
    if p.xp is np:
        index = np.searchsorted(edges[1:-1], p.confidence, side="left")
        distance = p.confidence - cell_middles(cells)[index].astype(np.float64)
        values = columns(dataclasses.replace(p, confidence=distance))
        return np.stack([np.bincount(index, v, cells) for v in values.T], axis=-1)
    return _device_table(p, edges)


def _device_table(p: Predictions, edges: Float[np.ndarray, " cells+1"]) -> Any:
    # Cell i is (i // low, i % low): a product of two small one-hot matrices, some predictions at a
    # time. Unlike a scatter it is deterministic on every device.
    cells = len(edges) - 1
    low = _factor(cells)
    count = p.confidence.shape[0]
    stretch = min(count, _AT_ONCE)
    stretches = -(-count // stretch)
    padding = stretches * stretch - count
    index = bin_index(p.confidence, edges)
    distance = p.confidence - jnp.asarray(cell_middles(cells))[index]
    values = columns(dataclasses.replace(p, confidence=distance))
    index = jnp.pad(index, (0, padding)).reshape(stretches, stretch)
    values = jnp.pad(values, ((0, padding), (0, 0))).reshape(stretches, stretch, 5)

    def add(table: jax.Array, stretch: Any) -> Any:
        index, values = stretch
        high_member = jax.nn.one_hot(index // low, cells // low, dtype=jnp.float32)
        low_member = jax.nn.one_hot(index % low, low, dtype=jnp.float32)
        spread = (low_member[:, :, None] * values[:, None, :]).reshape(len(index), -1)
        part = jnp.matmul(high_member.T, spread, precision="highest")
        return table + part.reshape(cells, 5), None

    first = (index[0], values[0])
    table, _ = add(jnp.zeros((cells, 5), jnp.float32), first)
    if stretches > 1:
        table, _ = jax.lax.scan(add, table, (index[1:], values[1:]))
    return table


def _factor(cells: int) -> int:
    """Returns the largest divisor of the number of cells that is not above its root."""
    return next(d for d in range(math.isqrt(cells), 0, -1) if cells % d == 0)
