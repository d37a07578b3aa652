"""Checks of what metrics are given: arrays of any library, numbers and choices.

Outside of `jax.jit` a metric computes on the host in float64, and an argument that is not allowed
is a ValueError that begins with its name. Inside, a metric computes in float32 and cannot look at
values: NaN is passed through, and the result is NaN where no prediction counts.
"""

import dataclasses
import math
import operator
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

AnyArray = Any
"""A NumPy array or, inside `jax.jit`, a JAX one."""

MOST_BINS = 2**24
"""More bins than this have edges that float32 cannot tell apart."""


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Checked arguments of a metric.

    Attributes:
        confidence: probability given to the event, in [0, 1].
        correct: 1 where it happened, else 0; a fraction is the probability that it did.
        weights: weight of each prediction, >= 0.
        precision: type of the confidences that were given; edges of bins are rounded to it.
        xp: `numpy` (float64) or, inside `jax.jit`, `jax.numpy` (float32).
    """

    confidence: Float[AnyArray, " n"]
    correct: Float[AnyArray, " n"]
    weights: Float[AnyArray, " n"]
    precision: Any
    xp: Any


@runtime_checkable
class TokenStats(Protocol):
    """Statistics of tokens, as far as metrics read them: `readout.TokenStats` has them.

    A statistic that was not computed is None.

    Attributes:
        nll: -log p of the target, in nats.
        entropy: entropy of the predictive distribution, in nats.
        sum_squares: sum over the vocabulary of p^2.
    """

    @property
    def nll(self) -> Any: ...

    @property
    def entropy(self) -> Any: ...

    @property
    def sum_squares(self) -> Any: ...


def predictions(confidence: Any, correct: Any, weights: Any = None) -> Predictions:
    """Returns the checked arguments of a metric; predictions of weight 0 may hold anything.

    Raises:
        ValueError: for what is not an array of numbers, for lengths that differ, for no
            predictions, and, outside of `jax.jit`, for values that are not finite or not in [0, 1]
            (weights: below 0, or all 0).
    """
    confidence, correct = as_array("confidence", confidence), as_array("correct", correct)
    shape = confidence.shape
    if len(shape) != 1:
        raise ValueError(f"confidence: shape {shape} must be that of a vector")
    weights = None if weights is None else as_array("weights", weights)
    for name, array in (("correct", correct), ("weights", weights)):
        if array is not None and array.shape != shape:
            raise ValueError(f"{name}: shape {array.shape} must be that of confidence, {shape}")
    if shape[0] == 0:
        raise ValueError("confidence: is empty; at least one prediction is needed")
    precision = confidence.dtype
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
    """Returns whether `jax.jit`, or another transform, traces any of the arrays."""
    return any(isinstance(array, jax.core.Tracer) for array in arrays)


def as_array(name: str, value: Any) -> AnyArray:
    """Returns an array of numbers in its own type; JAX arrays are passed through.

    No library is known by name: columns of pandas are read by `to_numpy`, those of other libraries
    by NumPy's `__array__` and, where that fails, by `__dlpack__`. A missing value (null, NA)
    becomes NaN, which is refused where its weight is above 0.

    Raises:
        ValueError: naming `name`, for text, dates, complex numbers, rows of different lengths,
            masked values, and what no protocol can read.
    """
    if isinstance(value, jax.Array):
        if not _is_numeric(value.dtype):
            raise ValueError(f"{name}: holds {value.dtype}; numbers are needed")
        return value
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        raise ValueError(f"{name}: has masked values; leave them out, or give them weights of 0")
    array = _read(name, value)
    if array.dtype == object:
        array = _of_objects(name, array)
    if not _is_numeric(array.dtype):
        kind = "text" if array.dtype.kind in "USTa" else array.dtype
        raise ValueError(f"{name}: holds {kind}; numbers are needed")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _is_numeric(dtype: Any) -> bool:
    """Whether the type holds booleans, integers or floats (bfloat16 too)."""
    if np.issubdtype(dtype, np.timedelta64):  # to NumPy a duration is an integer
        return False
    return any(jnp.issubdtype(dtype, kind) for kind in (np.bool_, jnp.integer, jnp.floating))


def _read(name: str, value: Any) -> np.ndarray:
    # what goes wrong in another library's conversion can be of any class
    if not isinstance(value, np.ndarray) and hasattr(value, "to_numpy"):
        try:
            return np.asarray(value.to_numpy(na_value=np.nan))
        except Exception:  # pandas alone knows na_value
            pass
    try:
        return np.asarray(value)
    except Exception as error:
        reason = error
    if hasattr(value, "__dlpack__"):
        for read in (np.from_dlpack, jnp.from_dlpack):  # JAX knows bfloat16
            try:
                return np.asarray(read(value))
            except Exception:
                continue
    why = " ".join(str(reason).split()).partition(". ")[0].rstrip(".")
    raise ValueError(f"{name}: cannot be read as an array of numbers: {why}") from None


def _of_objects(name: str, array: np.ndarray) -> Float[np.ndarray, "..."]:
    """Numbers from an array of objects of any class; missing values become NaN."""
    found = np.empty(array.shape)
    for at, value in np.ndenumerate(array):
        found[at] = math.nan if _is_missing(value) else _number(name, value)
    return found


def _is_missing(value: Any) -> bool:
    """Whether it is None, or the NA of pandas, which is not even equal to itself."""
    if value is None:
        return True
    try:
        return not bool(value == value)
    except Exception:
        return type(value).__name__ == "NAType"


def _number(name: str, value: Any) -> float:
    if not isinstance(value, str | bytes | complex) and hasattr(type(value), "__float__"):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            pass
    text = repr(value)
    shown = text if len(text) < 60 else text[:57] + "..."
    raise ValueError(f"{name}: {shown} is not allowed; a number is needed")


def numbers(name: str, array: Any, low: float, high: float) -> Float[np.ndarray, "..."]:
    """Returns the array in float64, checked to be finite and in [low, high].

    Raises:
        ValueError: naming `name`.
    """
    values = np.asarray(as_array(name, array)).astype(np.float64, copy=False)
    if values.size and not (
        np.isfinite(values).all() and values.min() >= low and values.max() <= high
    ):
        raise ValueError(f"{name}: must be finite and in [{low:g}, {high:g}]")
    return values


def counted(
    fields: dict[str, Any], weights: Any, low: float = -np.inf, high: float = np.inf
) -> tuple[dict[str, AnyArray], AnyArray]:
    """Returns arrays of one shape and their weights as JAX arrays; default weights are 1.

    Outside of `jax.jit`, values of weight above 0 are checked to be finite and in [low, high].

    Raises:
        ValueError: naming the field, or `weights`.
    """
    for name, value in fields.items():
        if value is None:
            raise ValueError(f"{name}: was not asked of readout")
    arrays = {name: as_array(name, value) for name, value in fields.items()}
    first, shape = next((name, array.shape) for name, array in arrays.items())
    weights = np.ones(shape, np.float32) if weights is None else as_array("weights", weights)
    for name, array in {**arrays, "weights": weights}.items():
        if array.shape != shape:
            raise ValueError(f"{name}: shape {array.shape} must be that of {first}, {shape}")
    if not is_traced(weights, *arrays.values()):
        chosen = numbers("weights", weights, 0.0, np.inf) > 0
        for name, array in arrays.items():
            numbers(name, np.asarray(array)[chosen], low, high)
    return {name: jnp.asarray(array) for name, array in arrays.items()}, jnp.asarray(weights)


def whole_numbers(name: str, array: Any, below: int) -> Int[np.ndarray, "..."]:
    """Returns the array in int64, checked to hold whole numbers in [0, below).

    Raises:
        ValueError: naming `name`.
    """
    values = np.asarray(as_array(name, array))
    if not jnp.issubdtype(values.dtype, jnp.integer):
        real = values.astype(np.float64)
        if not (np.isfinite(real).all() and (real == np.floor(real)).all()):
            raise ValueError(f"{name}: must be whole numbers in [0, {below})")
        values = real
    if values.size and not (values.min() >= 0 and values.max() < below):
        raise ValueError(f"{name}: must be in [0, {below})")
    return values.astype(np.int64)


def traced_labels(name: str, array: Any) -> AnyArray:
    """Returns an array of whole numbers inside `jax.jit`, where only its type can be checked.

    Raises:
        ValueError: naming `name`, for another type.
    """
    array = as_array(name, array)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        raise ValueError(f"{name}: {array.dtype} is not allowed inside jax.jit; an integer type is")
    return jnp.asarray(array)


def require_whole(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Returns the value as an int, checked to be a whole number in range; 2.0 is read as 2.

    Raises:
        ValueError: naming `name`.
    """
    if is_traced(value):
        raise ValueError(f"{name}: is traced; make it a static argument of jax.jit")
    wanted = f"at least {least}" if most is None else f"a whole number in {least}..{most}"
    number = None
    if not isinstance(value, bool | np.bool_):
        try:
            number = operator.index(value)
        except Exception:  # of another library: any class
            real = _number(name, value)
            number = int(real) if real.is_integer() else None
    if number is None or number < least or (most is not None and number > most):
        raise ValueError(f"{name}: {value!r} is not allowed; {wanted}")
    return number


def require_bins(name: str, value: Any) -> int:
    """Returns a number of bins as an int, checked as `require_whole` does."""
    return require_whole(name, value, 1, MOST_BINS)


def require_number(name: str, value: Any) -> float:
    """Returns the value as a float.

    Raises:
        ValueError: naming `name`, for what is traced or not a single number.
    """
    if is_traced(value):
        raise ValueError(f"{name}: is traced; make it a static argument of jax.jit")
    return _number(name, value)


def require_level(level: Any) -> float:
    """Returns a level of confidence as a float, checked to be between 0 and 1."""
    number = require_number("level", level)
    if not 0 < number < 1:
        raise ValueError(f"level: {level} is not allowed; between 0 and 1")
    return number


def require_one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raises ValueError, naming `name`, for a value that is not allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: {value!r} is not allowed; allowed: {', '.join(allowed)}")


def require_kind(name: str, value: Any, kind: type) -> None:
    """Raises ValueError, naming `name`, for a value of another class."""
    if not isinstance(value, kind):
        raise ValueError(f"{name}: must be {kind.__name__}, not {type(value).__name__}")
