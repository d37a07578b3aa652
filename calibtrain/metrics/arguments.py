"""What every metric is given: a confidence and a correctness a prediction, checked in one place.

Outside of `jax.jit` a metric computes on the host in float64 and what makes no sense is a
ValueError that names the argument. Inside, it computes in float32 and values cannot be looked at:
a NaN stays a NaN, and where nothing counts the result is NaN.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

AnyArray = Any
"""A NumPy array or, inside `jax.jit`, a JAX one."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Arguments that make sense.

    Attributes:
        confidence: probability given to the event, in [0, 1].
        correct: 1 where it happened, else 0; a fraction is the probability that it did.
        weights: how often each counts, >= 0.
        precision: type in which the confidences came: what an edge of a bin is rounded to.
        xp: `numpy` (float64) or, inside `jax.jit`, `jax.numpy` (float32).
    """

    confidence: Float[AnyArray, " n"]
    correct: Float[AnyArray, " n"]
    weights: Float[AnyArray, " n"]
    precision: Any
    xp: Any


def predictions(confidence: Any, correct: Any, weights: Any = None) -> Predictions:
    """The arguments of a metric, checked; what weighs 0 may hold anything and counts nowhere.

    Raises:
        ValueError: for lengths that differ, no predictions, and, outside of `jax.jit`, values that
            are not finite or lie outside of [0, 1] (weights: below 0, or all 0).
    """
    shape = jnp.shape(confidence)
    if len(shape) != 1:
        raise ValueError(f"confidence: shape {shape} must be that of a vector")
    for name, array in (("correct", correct), ("weights", weights)):
        if array is not None and jnp.shape(array) != shape:
            raise ValueError(
                f"{name}: shape {jnp.shape(array)} must be that of confidence, {shape}"
            )
    if shape[0] == 0:
        raise ValueError("confidence: is empty; at least one prediction is needed")
    precision = getattr(confidence, "dtype", np.dtype(np.float64))
    if not jnp.issubdtype(precision, jnp.floating):
        precision = np.dtype(np.float64)
    if is_traced(confidence, correct, weights):
        weights = jnp.ones(shape, jnp.float32) if weights is None else weights
        weights = jnp.asarray(weights, jnp.float32)
        # a selection, not only a product: what does not count may hold anything, NaN included
        confidence, correct = (
            jnp.where(weights == 0, 0, jnp.asarray(a, jnp.float32)) for a in (confidence, correct)
        )
        return Predictions(confidence, correct, weights, precision, jnp)
    weights = np.ones(shape) if weights is None else numbers("weights", weights, 0.0, np.inf)
    if not weights.any():
        raise ValueError("weights: are all 0; the selection is empty")
    counted = weights > 0
    return Predictions(
        numbers("confidence", np.asarray(confidence)[counted], 0.0, 1.0),
        numbers("correct", np.asarray(correct)[counted], 0.0, 1.0),
        weights[counted],
        precision,
        np,
    )


def is_traced(*arrays: Any) -> bool:
    """Whether any is an argument of a function that `jax.jit` (or another transform) traces."""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def numbers(name: str, array: Any, low: float, high: float) -> Float[np.ndarray, "..."]:
    """The array in float64, once all of it is known to be finite and in [low, high].

    Raises:
        ValueError: naming `name`.
    """
    values = np.asarray(array, np.float64)
    if values.size and not (
        np.isfinite(values).all() and values.min() >= low and values.max() <= high
    ):
        raise ValueError(f"{name}: must be finite and in [{low:g}, {high:g}]")
    return values


def require_at_least(name: str, value: int, least: int) -> None:
    """Raises ValueError, naming `name`, for a value below `least`."""
    if value < least:
        raise ValueError(f"{name}: {value} is not allowed; at least {least}")


def require_one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises ValueError, naming `name`, for a value that is not allowed."""
    if value not in allowed:
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: {', '.join(allowed)}")
