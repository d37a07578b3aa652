"""Scores of predictions: Brier and its parts, log loss, nll and the entropy calibration error.

The binary forms score whether the prediction was right; the forms for tokens score the whole
predictive distribution, and read `TokenStats`.
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
    """Returns the binary Brier score: the mean of (confidence - correct)^2.

    Args:
        confidence: probability given to the prediction, in [0, 1].
        correct: 1 where the prediction was right, else 0; for a fraction, the probability of being
            right, the expected score.
        weights: weight of each prediction; default 1.

    Returns:
        The score in [0, 1], without a unit: less is better.

    Raises:
        ValueError: as `expected_calibration_error` does.

    Example:
        >>> print(f"{brier_score([0.9, 0.6], [1, 0]):.4f}")  # (0.1^2 + 0.6^2) / 2
        0.1850

    References:
        Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review
        78, 1950.
    """
    p = predictions(confidence, correct, weights)
    c, y = p.confidence, p.correct
    return p.xp.sum(p.weights * (c * c - 2 * c * y + y)) / p.xp.sum(p.weights)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BrierParts:
    """The parts of a Brier score: brier = reliability - resolution + uncertainty + within_bin.

    Attributes:
        brier: the binary Brier score.
        reliability: sum_b w_b / W (confidence_b - accuracy_b)^2; 0 for perfect calibration.
        resolution: sum_b w_b / W (accuracy_b - accuracy)^2; more is better.
        uncertainty: accuracy * (1 - accuracy), which does not depend on the confidences.
        within_bin: what differences of confidence within bins add: their variance less twice their
            covariance with correctness. It is 0 where every bin holds one confidence.
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
    """Returns the binary Brier score and its parts, whose sum it is exactly.

    Arguments and errors are those of `expected_calibration_error`.

    Example:
        >>> parts = brier_parts([0.9, 0.9, 0.3, 0.3], [1, 0, 0, 0])
        >>> print(f"{parts.brier:.4f} = {parts.reliability:.4f} - {parts.resolution:.4f} + "
        ...       f"{parts.uncertainty:.4f} + {abs(parts.within_bin):.4f}")
        0.2500 = 0.1250 - 0.0625 + 0.1875 + 0.0000

    References:
        Murphy, "A New Vector Partition of the Probability Score", J. Applied Meteorology 12, 1973.
        Stephenson et al., "Two Extra Components in the Brier Score Decomposition", Weather and
        Forecasting 23, 2008 (the part within bins).
    """
    p = predictions(confidence, correct, weights)
    brier = brier_score(confidence, correct, weights=weights)
    return brier_parts_of_table(binned(p, bins, scheme), brier, p.xp)


def brier_parts_of_table(table: Float[AnyArray, "bins 3"], brier: Any, xp: Any = np) -> BrierParts:
    """Returns the parts of a Brier score, from a reliability table."""
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
    """Returns the binary log loss: the mean of -log c where right and -log(1 - c) where wrong.

    Arguments and errors are those of `brier_score`.

    Returns:
        The loss in nats per prediction. It is infinite, and not clipped, where a prediction of
        probability 1 was wrong.

    Example:
        >>> print(f"{log_loss([0.5, 0.75], [1, 0]):.4f}")
        1.0397
    """
    p = predictions(confidence, correct, weights)
    with np.errstate(divide="ignore"):
        right, wrong = -p.xp.log(p.confidence), -p.xp.log1p(-p.confidence)
    # a selection, because 0 * infinity is NaN
    loss = p.xp.where(p.correct > 0, p.correct * p.xp.where(p.correct > 0, right, 0.0), 0.0)
    miss = 1 - p.correct
    loss = loss + p.xp.where(miss > 0, miss * p.xp.where(miss > 0, wrong, 0.0), 0.0)
    return p.xp.sum(p.weights * loss) / p.xp.sum(p.weights)


def nll(
    stats: TokenStats, *, weights: Float[AnyArray, "*tokens"] | None = None
) -> Float[AnyArray, ""]:
    """Returns the mean negative log-likelihood of the targets: mean of -log p_y.

    Args:
        stats: statistics of tokens, with the field `nll`.
        weights: weight of each token; default 1.

    Returns:
        The mean in nats per token.

    Raises:
        ValueError: for a field that was not asked of `readout`, weights of another shape, no tokens
            of weight above 0, and, outside of `jax.jit`, values that are not finite.

    Example:
        >>> from calibtrain.readout import TokenStats
        >>> print(f"{nll(TokenStats(nll=np.array([1.0, 3.0]))):.4f}")
        2.0000
    """
    require_kind("stats", stats, TokenStats)
    return _mean(weights, nll=stats.nll)


def entropy_calibration_error(
    stats: TokenStats, *, weights: Float[AnyArray, "*tokens"] | None = None
) -> Float[AnyArray, ""]:
    """Returns the entropy calibration error: |entropy rate - nll|.

    The entropy rate is the mean entropy of the predictive distributions along real text. That of a
    calibrated model equals its nll. Reads the fields `entropy` and `nll`; arguments and errors are
    those of `nll`.

    Returns:
        The error in nats per token.

    Example:
        >>> from calibtrain.readout import TokenStats
        >>> stats = TokenStats(nll=np.array([1.0, 3.0]), entropy=np.array([1.5, 1.5]))
        >>> print(f"{entropy_calibration_error(stats):.4f}")
        0.5000

    References:
        Braverman et al., "Calibration, Entropy Rates, and Memory in Language Models", ICML 2020.
    """
    require_kind("stats", stats, TokenStats)
    return abs(_mean(weights, entropy=stats.entropy) - _mean(weights, nll=stats.nll))


def multiclass_brier_score(
    stats: TokenStats, *, weights: Float[AnyArray, "*tokens"] | None = None
) -> Float[AnyArray, ""]:
    """Returns the multiclass Brier score: the mean of sum_v (p_v - [v = y])^2.

    It is computed as 1 - 2 p_y + sum_v p_v^2 from the fields `nll` and `sum_squares`; arguments and
    errors are those of `nll`.

    Returns:
        The score in [0, 2], without a unit: less is better.

    Example:
        >>> from calibtrain.readout import TokenStats
        >>> p = np.array([0.7, 0.2, 0.1])
        >>> stats = TokenStats(nll=-np.log(p[:1]), sum_squares=np.array([(p**2).sum()]))
        >>> print(f"{multiclass_brier_score(stats):.4f}")
        0.1400

    References:
        Brier, "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review
        78, 1950.
    """
    require_kind("stats", stats, TokenStats)
    if stats.nll is None:
        raise ValueError("nll: was not asked of readout")
    each = as_array("nll", stats.nll)
    if is_traced(each):
        p_y = _mean(weights, nll=jnp.exp(-each))
    else:  # in the type that it came in
        p_y = _mean(weights, nll=np.exp(-np.asarray(each)))
    return 1 - 2 * p_y + _mean(weights, sum_squares=stats.sum_squares)


def _mean(weights: Any, **named: Any) -> Any:
    """Returns the weighted mean of one array, given by the name that errors call it by."""
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
    """Sums over tokens: a state that can be merged with others.

    Attributes:
        sums: of weight, nll (nats), entropy (nats) and multiclass Brier score.

    Example:
        >>> first, second = TokenScores(np.array([2.0, 4.0, 3.0, 1.0])), TokenScores(np.ones(4))
        >>> print(token_scores(first.merge(second))["nll"])  # (4 + 1) / (2 + 1)
        1.6666666666666667
    """

    sums: Float[AnyArray, "4"]

    @classmethod
    def of(
        cls, stats: TokenStats, weights: Float[AnyArray, "*tokens"] | None = None
    ) -> "TokenScores":
        """Returns the state of some tokens. Runs inside `jax.jit`.

        Args:
            stats: statistics of tokens, with the fields `nll`, `entropy` and `sum_squares`.
            weights: weight of each token; default 1.

        Raises:
            ValueError: as `nll` does.
        """
        require_kind("stats", stats, TokenStats)
        fields = {name: getattr(stats, name) for name in ("nll", "entropy", "sum_squares")}
        each, weights = counted(fields, weights)
        nll = each["nll"]
        brier = 1 - 2 * jnp.exp(-nll) + each["sum_squares"]
        values = jnp.stack([jnp.ones_like(nll), nll, each["entropy"], brier])
        values = jnp.where(weights > 0, values * weights, 0.0)
        return cls(values.reshape(4, -1).sum(-1))

    def merge(self, other: "TokenScores") -> "TokenScores":
        """Returns the state of both parts together."""
        return jax.tree.map(lambda a, b: a + b, self, other)

    def exact(self) -> "TokenScores":
        """Returns the state on the host in float64, so that many can be merged without rounding."""
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self)


def token_scores(state: TokenScores) -> dict[str, float]:
    """Returns the figures of a state by name.

    Args:
        state: merged over all tokens.

    Returns:
        nll, entropy_rate and entropy_calibration_error, in nats per token, and
        multiclass_brier_score, in [0, 2].

    Raises:
        ValueError: for an empty state.

    Example:
        >>> print(token_scores(TokenScores(np.array([2.0, 4.0, 3.0, 1.0])))["nll"])
        2.0
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
