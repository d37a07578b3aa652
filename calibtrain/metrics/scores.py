"""Scores of whole predictive distributions: Brier and its parts, log loss, nll, entropy.

The binary forms ask whether the prediction was right; the token forms read `TokenStats`.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from calibtrain.metrics.arguments import (
    AnyArray,
    TokenStats,
    as_array,
    counted,
    is_traced,
    numbers,
    predictions,
    require_kind,
)
from calibtrain.metrics.calibration import Scheme, binned


def brier_score(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """Binary Brier score: the mean of (confidence - correct)^2, in [0, 1] (Brier, 1950).

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0; for a fraction, the probability of being
            right, the expected score.
        weights: weight of each prediction; default 1.
    """
    p = predictions(confidence, correct, weights)
    c, y = p.confidence, p.correct
    return p.xp.sum(p.weights * (c * c - 2 * c * y + y)) / p.xp.sum(p.weights)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BrierParts:
    """brier = reliability - resolution + uncertainty + within_bin, exactly.

    Attributes:
        brier: the binary Brier score.
        reliability: sum_b w_b / W (confidence_b - accuracy_b)^2; 0 is calibrated.
        resolution: sum_b w_b / W (accuracy_b - accuracy)^2; more is better.
        uncertainty: accuracy * (1 - accuracy), which no forecast changes.
        within_bin: what differences of confidence within bins add: their variance less twice their
            covariance with correctness; 0 where a bin holds one confidence (Murphy, 1973, has only
            that case; Stephenson et al., 2008).
    """

    brier: Any
    reliability: Any
    resolution: Any
    uncertainty: Any
    within_bin: Any


def brier_parts(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    bins: int = 15,
    scheme: Scheme = "width",
    weights: Float[AnyArray, " n"] | None = None,
) -> BrierParts:
    """The binary Brier score and its parts; arguments as for `expected_calibration_error`."""
    p = predictions(confidence, correct, weights)
    brier = brier_score(confidence, correct, weights=weights)
    return brier_parts_of_table(binned(p, bins, scheme), brier, p.xp)


def brier_parts_of_table(table: Float[AnyArray, "bins 3"], brier: Any, xp: Any = np) -> BrierParts:
    """The parts of a Brier score, from a reliability table."""
    weight, confidence, correct = table[:, 0], table[:, 1], table[:, 2]
    total = xp.sum(weight)
    safe = xp.where(weight > 0, weight, 1.0)
    accuracy = xp.sum(correct) / total
    reliability = xp.sum(xp.square(confidence - correct) / safe) / total
    resolution = xp.sum(weight * xp.square(correct / safe - accuracy)) / total
    uncertainty = accuracy * (1 - accuracy)
    within = brier - (reliability - resolution + uncertainty)
    return BrierParts(brier, reliability, resolution, uncertainty, within)


def log_loss(
    confidence: Float[AnyArray, " n"],
    correct: Float[AnyArray, " n"],
    *,
    weights: Float[AnyArray, " n"] | None = None,
) -> Float[AnyArray, ""]:
    """Binary log loss in nats: mean of -log c where right and -log(1 - c) where wrong.

    Arguments as for `brier_score`. Infinite, rather than clipped, where certainty was wrong.
    """
    p = predictions(confidence, correct, weights)
    with np.errstate(divide="ignore"):
        right, wrong = -p.xp.log(p.confidence), -p.xp.log1p(-p.confidence)
    # a selection: 0 * infinity is no number
    loss = p.xp.where(p.correct > 0, p.correct * p.xp.where(p.correct > 0, right, 0.0), 0.0)
    miss = 1 - p.correct
    loss = loss + p.xp.where(miss > 0, miss * p.xp.where(miss > 0, wrong, 0.0), 0.0)
    return p.xp.sum(p.weights * loss) / p.xp.sum(p.weights)


def nll(
    stats: TokenStats, *, weights: Float[AnyArray, "*tokens"] | None = None
) -> Float[AnyArray, ""]:
    """Mean nll in nats a token (the field `nll`).

    Raises:
        ValueError: for a field that was not asked of `readout`, weights of another shape, nothing
            that counts, and, outside of `jax.jit`, what is not finite.
    """
    require_kind("stats", stats, TokenStats)
    return _mean(weights, nll=stats.nll)


def entropy_calibration_error(
    stats: TokenStats, *, weights: Float[AnyArray, "*tokens"] | None = None
) -> Float[AnyArray, ""]:
    """|entropy rate - nll| in nats a token (fields `entropy`, `nll`); errors as for `nll`.

    The entropy rate is the mean entropy of the predictive distribution along real text: a
    calibrated model's equals its nll (Braverman et al., ICML 2020).
    """
    require_kind("stats", stats, TokenStats)
    return abs(_mean(weights, entropy=stats.entropy) - _mean(weights, nll=stats.nll))


def multiclass_brier_score(
    stats: TokenStats, *, weights: Float[AnyArray, "*tokens"] | None = None
) -> Float[AnyArray, ""]:
    """Multiclass Brier score: mean of 1 - 2 p_y + sum_v p_v^2, in [0, 2] (Brier, 1950).

    Reads the fields `nll` and `sum_squares`; errors as for `nll`.
    """
    require_kind("stats", stats, TokenStats)
    if stats.nll is None:
        raise ValueError("nll: was not asked of readout")
    each = as_array("nll", stats.nll)
    if is_traced(each):
        p_y = _mean(weights, nll=jnp.exp(-each))
    else:  # float32 stays what it is
        p_y = _mean(weights, nll=np.exp(-np.asarray(each)))
    return 1 - 2 * p_y + _mean(weights, sum_squares=stats.sum_squares)


def _mean(weights: Any, **named: Any) -> Any:
    """Weighted mean of one array, given under the name that errors should call it by."""
    ((name, values),) = named.items()
    if values is None:
        raise ValueError(f"{name}: was not asked of readout")
    values = as_array(name, values)
    weights = None if weights is None else as_array("weights", weights)
    if weights is not None and weights.shape != values.shape:
        raise ValueError(f"weights: shape {weights.shape} must be that of {name}, {values.shape}")
    if values.size == 0:
        raise ValueError(f"{name}: is empty; at least one token is needed")
    if is_traced(values, weights):
        values = jnp.asarray(values, jnp.float32)
        weights = jnp.ones_like(values) if weights is None else jnp.asarray(weights, jnp.float32)
        return jnp.sum(jnp.where(weights > 0, values * weights, 0.0)) / jnp.sum(weights)
    if weights is None:
        return numbers(name, values, -np.inf, np.inf).mean()
    weights = numbers("weights", weights, 0.0, np.inf)
    if not weights.any():
        raise ValueError("weights: are all 0; the selection is empty")
    values = numbers(name, np.asarray(values)[weights > 0], -np.inf, np.inf)
    return np.average(values, weights=weights[weights > 0])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenScores:
    """Unreduced sums over tokens, a mergeable state.

    Attributes:
        sums: of weight, nll (nats), entropy (nats) and multiclass Brier score.
    """

    sums: Float[AnyArray, "4"]

    @classmethod
    def of(
        cls, stats: TokenStats, weights: Float[AnyArray, "*tokens"] | None = None
    ) -> "TokenScores":
        """The state of some tokens: fields nll, entropy, sum_squares. Runs inside `jax.jit`."""
        require_kind("stats", stats, TokenStats)
        fields = {name: getattr(stats, name) for name in ("nll", "entropy", "sum_squares")}
        each, weights = counted(fields, weights)
        nll = each["nll"]
        brier = 1 - 2 * jnp.exp(-nll) + each["sum_squares"]
        values = jnp.stack([jnp.ones_like(nll), nll, each["entropy"], brier])
        values = jnp.where(weights > 0, values * weights, 0.0)
        return cls(values.reshape(4, -1).sum(-1))

    def merge(self, other: "TokenScores") -> "TokenScores":
        """The state of both parts together."""
        return jax.tree.map(lambda a, b: a + b, self, other)

    def exact(self) -> "TokenScores":
        """The same on the host in float64, for merging many batches without rounding."""
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self)


def token_scores(state: TokenScores) -> dict[str, float]:
    """Read a state: nll, entropy_rate, entropy_calibration_error, multiclass_brier_score.

    Raises:
        ValueError: for an empty state.
    """
    require_kind("state", state, TokenScores)
    sums = numbers("state", state.sums, -np.inf, np.inf)
    if sums.shape != (4,):
        raise ValueError(f"state: sums of shape {sums.shape} must be four")
    weight, total_nll, entropy, brier = (float(value) for value in sums)
    if weight <= 0:
        raise ValueError("state: is empty; at least one token is needed")
    return {
        "nll": total_nll / weight,
        "entropy_rate": entropy / weight,
        "entropy_calibration_error": abs(entropy - total_nll) / weight,
        "multiclass_brier_score": brier / weight,
    }
