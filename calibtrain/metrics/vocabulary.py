"""Calibration of the whole predictive distribution: top-k, classwise and Full-ECE.

Every probability of a distribution is a prediction of its own: "the next token is v". A
`VocabularyTable` sums them by entry and bin, one chunk of logits at a time (`readout.accumulate`),
so that no array of size tokens x vocabulary is ever held.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from calibtrain.metrics.arguments import (
    AnyArray,
    as_array,
    counted,
    is_traced,
    numbers,
    predictions,
    require_bins,
    require_one_of,
    require_whole,
    traced_labels,
    whole_numbers,
)
from calibtrain.metrics.calibration import Scheme, bin_edges, binned, table_error

Per = Literal["pair", "token"]
Functional = Callable[[jax.Array, jax.Array], jax.Array]
"""A number per token, for `readout`: logits [tokens, vocab], labels [tokens] -> [tokens]."""

_HOST_ELEMENTS = 2**22
"""Probabilities processed at once on the host: 32 MiB."""

_SUM_TOLERANCE = 1e-3
"""How far the sum of a distribution may be from 1, by rounding in float32 of a large vocabulary."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class VocabularyTable:
    """Sums over tokens by vocabulary entry and bin of its probability: a state that can be merged.

    It holds `3 * bins` numbers per entry of the vocabulary, however many tokens there are.

    Attributes:
        table: per entry and bin the sums of weight, probability, and weight where the entry was
            the target.

    Example:
        >>> probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
        >>> state = VocabularyTable.of(np.log(probabilities), np.array([0, 1]), np.ones(2))
        >>> print(f"{state.classwise('token'):.4f}, {state.full('token'):.4f}")
        0.6000, 0.6000
    """

    table: Float[AnyArray, "vocab bins 3"]

    @classmethod
    def of(
        cls,
        logits: Float[AnyArray, "tokens padded"],
        labels: Int[AnyArray, " tokens"],
        weights: Float[AnyArray, " tokens"],
        *,
        bins: int = 15,
        vocab_size: int | None = None,
    ) -> "VocabularyTable":
        """Returns the state of a chunk of tokens. Runs inside `jax.jit`, in float32.

        Args:
            logits: logits, or logarithms of probabilities.
            labels: target of each token.
            weights: weight of each token; tokens of weight 0 may hold anything.
            bins: number of equal-width bins of probability.
            vocab_size: columns from here on are padding, and must have no probability.

        Raises:
            ValueError: as `full_calibration_error` does.
        """
        bins = require_bins("bins", bins)
        logits, labels, weights = fitting_rows("logits", logits, labels, weights)
        if vocab_size is not None:
            vocab_size = require_whole("vocab_size", vocab_size, 1, logits.shape[1])
        if is_traced(logits, labels, weights):
            labels = traced_labels("labels", labels)
        else:
            counted({"logits": np.asarray(logits).max(-1)}, weights)
            labels = jnp.asarray(whole_numbers("labels", labels, logits.shape[1]), jnp.int32)
        probability = jax.nn.softmax(jnp.asarray(logits, jnp.float32), axis=-1)
        return cls(class_table(probability[:, :vocab_size], labels, weights, bins))

    def merge(self, other: "VocabularyTable") -> "VocabularyTable":
        """Returns the state of both parts together."""
        return jax.tree.map(lambda a, b: a + b, self, other)

    def exact(self) -> "VocabularyTable":
        """Returns the state on the host in float64, so that many can be merged without rounding."""
        return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), self)

    def classwise(self, per: Per = "pair") -> Any:
        """Returns `classwise_calibration_error` of all tokens of the state."""
        return _classwise(self._counted(), per)

    def full(self, per: Per = "pair") -> Any:
        """Returns `full_calibration_error` of all tokens of the state."""
        return _full(self._counted(), per)

    def _counted(self) -> Float[np.ndarray, "vocab bins 3"]:
        table = numbers("state", self.table, -np.inf, np.inf)
        if table.ndim != 3 or table.shape[-1] != 3:
            raise ValueError(f"state: table of shape {table.shape} must be [vocab, bins, 3]")
        if table[..., 0].sum() <= 0:
            raise ValueError("state: is empty; at least one token is needed")
        return table


def class_table(
    probability: Float[AnyArray, "tokens vocab"],
    labels: Int[AnyArray, " tokens"],
    weights: Float[AnyArray, " tokens"],
    bins: int,
) -> Float[AnyArray, "vocab bins 3"]:
    """Returns the table of a `VocabularyTable`. Runs inside `jax.jit`."""
    weights = jnp.asarray(weights, jnp.float32)
    probability = jnp.where(weights[:, None] > 0, probability, 0.0)
    edges = jnp.asarray(bin_edges(bins))
    lower = edges[:-1].at[0].set(-1.0)

    def of_bin(bounds: Any) -> jax.Array:
        inside = (probability > bounds[0]) & (probability <= bounds[1])
        members = inside.astype(jnp.float32), jnp.where(inside, probability, 0.0)
        return jnp.stack([jnp.matmul(weights, m, precision="highest") for m in members], axis=-1)

    # a bin at a time: the products read the probabilities again instead of keeping memberships
    # (two products of a vector and a matrix: as one, a CPU takes eight times as long)
    upper = edges[1:].at[-1].set(2.0)  # a sum of exponentials may round to above 1
    sums = jax.lax.map(of_bin, (lower, upper))
    of_label = jnp.take_along_axis(probability, labels[:, None], axis=-1)[:, 0]
    member = jax.nn.one_hot(jnp.searchsorted(edges[1:-1], of_label, side="left"), bins)
    is_label = jax.nn.one_hot(labels, probability.shape[-1])
    correct = jnp.matmul(is_label.T, member * weights[:, None], precision="highest")
    return jnp.concatenate([jnp.moveaxis(sums, 0, 1), correct[..., None]], axis=-1)


def classwise_calibration_error(
    probabilities: Float[AnyArray, "tokens vocab"],
    labels: Int[AnyArray, " tokens"],
    *,
    bins: int = 15,
    weights: Float[AnyArray, " tokens"] | None = None,
    per: Per = "pair",
) -> Float[AnyArray, ""]:
    """Returns classwise ECE: the mean over classes v of the ECE of the event "the target is v".

    1 / V sum_v sum_b w_vb / W |frequency_vb - probability_vb|, where bin b of class v holds the
    tokens that give v a probability in it, frequency_vb is how often v is their target, and
    probability_vb is their mean probability of v.

    Args:
        probabilities: one distribution per token.
        labels: target of each token.
        bins: number of equal-width bins.
        weights: weight of each token; default 1.
        per: `pair` for the mean over classes, as in the paper. It vanishes as the vocabulary grows,
            since nearly all probabilities are near 0. `token` for the sum over classes.

    Returns:
        The error, without a unit: in [0, 2 / V] per pair, in [0, 2] per token.

    Raises:
        ValueError: for shapes that do not fit, no tokens, and, outside of `jax.jit`, values that
            are not finite, not a distribution, or not a class.

    Example:
        >>> probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
        >>> print(f"{classwise_calibration_error(probabilities, [0, 1]):.4f}")  # (.2 + .3 + .1) / 3
        0.2000

    References:
        Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multi-class
        probabilities with Dirichlet calibration", NeurIPS 2019.
    """
    return _classwise(_table(probabilities, labels, bins, weights), per)


def full_calibration_error(
    probabilities: Float[AnyArray, "tokens vocab"],
    labels: Int[AnyArray, " tokens"],
    *,
    bins: int = 15,
    weights: Float[AnyArray, " tokens"] | None = None,
    per: Per = "pair",
) -> Float[AnyArray, ""]:
    """Returns Full-ECE: one ECE over all (token, class) pairs.

    sum_m |B_m| / N |A_m - C_m|, where bin m holds every pair whose probability lies in it, A_m is
    how often the class was the target, and C_m is the mean probability.

    Args:
        probabilities: one distribution per token.
        labels: target of each token.
        bins: number of equal-width bins.
        weights: weight of each token; default 1.
        per: what N counts. `pair`: the pairs, so that the shares of the bins add up to 1; the value
            vanishes as the vocabulary grows. `token`: the tokens, which gives V times as much.

    Returns:
        The error, without a unit: in [0, 2 / V] per pair, in [0, 2] per token.

    Raises:
        ValueError: as `classwise_calibration_error` does.

    Example:
        >>> probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
        >>> print(f"{full_calibration_error(probabilities, [0, 1], per='token'):.4f}")
        0.6000
        >>> print(f"{full_calibration_error(probabilities, [0, 1], bins=1, per='token'):.4f}")
        0.0000

    References:
        Liu et al., "Full-ECE: A Metric For Token-level Calibration on Large Language Models", arXiv
        2406.11345, 2024.
    """
    return _full(_table(probabilities, labels, bins, weights), per)


def _classwise(table: Any, per: str) -> Any:
    require_one_of("per", per, ("pair", "token"))
    errors = abs(table[..., 2] - table[..., 1]).sum(-1) / table[..., 0].sum(-1)
    return errors.mean() if per == "pair" else errors.sum()


def _full(table: Any, per: str) -> Any:
    require_one_of("per", per, ("pair", "token"))
    error = table_error(table.sum(0))
    return error if per == "pair" else error * table.shape[0]


def _table(probabilities: Any, labels: Any, bins: int, weights: Any) -> Any:
    """Returns per class and bin the sums of weight, probability and correctness."""
    bins = require_bins("bins", bins)
    probabilities, labels, weights = fitting_rows("probabilities", probabilities, labels, weights)
    vocab = probabilities.shape[1]
    if is_traced(probabilities, labels, weights):
        labels = traced_labels("labels", labels)
        return class_table(jnp.asarray(probabilities, jnp.float32), labels, weights, bins)
    table = np.zeros((3, vocab * bins))
    edges = bin_edges(bins, _precision(probabilities))
    for part, label, weight in distributions(probabilities, labels, weights):
        index = np.searchsorted(edges[1:-1], part, side="left") + np.arange(vocab) * bins
        for row, value in ((0, np.ones_like(part)), (1, part)):
            value = (value * weight[:, None]).ravel()
            table[row] += np.bincount(index.ravel(), value, vocab * bins)
        table[2] += np.bincount(index[np.arange(len(part)), label], weight, vocab * bins)
    return np.moveaxis(table.reshape(3, vocab, bins), 0, -1)


def fitting_rows(name: str, rows: Any, labels: Any, weights: Any) -> tuple[Any, Any, Any]:
    """Returns arrays with one row, label and weight per token; default weights are 1."""
    rows, labels = as_array(name, rows), as_array("labels", labels)
    shape = rows.shape
    if len(shape) != 2:
        raise ValueError(f"{name}: shape {shape} must be [tokens, vocab]")
    if not all(shape):
        raise ValueError(f"{name}: are empty; at least one token and class are needed")
    if labels.shape != shape[:1]:
        raise ValueError(f"labels: shape {labels.shape} must be {shape[:1]}, one for each token")
    if weights is None:
        return rows, labels, np.ones(shape[0], np.float32)
    weights = as_array("weights", weights)
    if weights.shape != shape[:1]:
        raise ValueError(f"weights: shape {weights.shape} must be {shape[:1]}")
    return rows, labels, weights


def _precision(probabilities: Any) -> Any:
    """Returns the type that edges are rounded to: float64 where the array holds integers."""
    dtype = probabilities.dtype
    return dtype if jnp.issubdtype(dtype, jnp.floating) else np.dtype(np.float64)


def distributions(probabilities: Any, labels: Any, weights: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yields the tokens of weight above 0 in blocks, checked, in float64."""
    weights = numbers("weights", weights, 0.0, np.inf)
    if not weights.any():
        raise ValueError("weights: are all 0; the selection is empty")
    tokens, vocab = probabilities.shape
    rows = max(1, _HOST_ELEMENTS // vocab)
    for start in range(0, tokens, rows):
        weight = weights[start : start + rows]
        counts = weight > 0
        label = np.asarray(labels[start : start + rows])[counts]
        label = whole_numbers("labels", label, vocab)
        part = np.asarray(probabilities[start : start + rows])[counts]
        part = numbers("probabilities", part, 0.0, 1.0)
        if len(part) and np.abs(part.sum(-1) - 1).max() > _SUM_TOLERANCE:
            raise ValueError(f"probabilities: must add up to 1, to within {_SUM_TOLERANCE:g}")
        yield part, label, weight[counts]


def top_k_calibration_error(
    probabilities: Float[AnyArray, "tokens vocab"],
    labels: Int[AnyArray, " tokens"],
    *,
    k: int,
    bins: int = 15,
    scheme: Scheme = "width",
    weights: Float[AnyArray, " tokens"] | None = None,
) -> Float[AnyArray, ""]:
    """Returns the ECE of the event "the target is among the k most probable classes".

    Its confidence is the sum of the k largest probabilities; of equal ones the first are taken.
    k = 1 gives the ordinary ECE. For streams, ask `readout` for the functionals
    `top_k_confidence(k)` and `top_k_correct(k)`.

    Args:
        probabilities: one distribution per token.
        labels: target of each token.
        k: number of classes.
        bins: number of bins.
        scheme: `width` or `mass`, as for `expected_calibration_error`.
        weights: weight of each token; default 1.

    Returns:
        The error in [0, 1], without a unit.

    Raises:
        ValueError: for a k that is not allowed; otherwise as `classwise_calibration_error` does.

    Example:
        >>> probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
        >>> print(f"{top_k_calibration_error(probabilities, [0, 1], k=2):.4f}")
        0.1000

    References:
        Gupta et al., "Calibration of Neural Networks using Splines", ICLR 2021.
    """
    probabilities, labels, weights = fitting_rows("probabilities", probabilities, labels, weights)
    k = require_whole("k", k, 1, probabilities.shape[1])
    if is_traced(probabilities, labels, weights):
        labels = traced_labels("labels", labels)
        top, classes = jax.lax.top_k(jnp.asarray(probabilities, jnp.float32), k)
        among = jnp.any(classes == labels[:, None], axis=-1)
        p = predictions(jnp.minimum(jnp.sum(top, axis=-1), 1.0), among, weights)
    else:
        blocks = [_top_k(k, *block) for block in distributions(probabilities, labels, weights)]
        mass, hit, weight = (np.concatenate(column) for column in zip(*blocks, strict=True))
        # edges are rounded as the probabilities were
        p = predictions(mass.astype(_precision(probabilities)), hit, weight)
    return table_error(binned(p, bins, scheme))


def _top_k(k: int, probabilities: Any, labels: Any, weights: Any) -> tuple[Any, Any, Any]:
    classes = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
    mass = np.take_along_axis(probabilities, classes, axis=-1).sum(-1)
    return np.minimum(mass, 1.0), (classes == labels[:, None]).any(-1), weights


def top_k_confidence(k: int) -> Functional:
    """Returns a functional for `readout`: the sum of a token's k largest probabilities.

    Example:
        >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
        >>> print(top_k_confidence(2)(logits, jnp.array([1])))
        [0.9]
    """
    k = require_whole("k", k, 1)

    def functional(logits: jax.Array, labels: jax.Array) -> jax.Array:
        top = jax.nn.logsumexp(jax.lax.top_k(logits, k)[0], axis=-1)
        return jnp.minimum(jnp.exp(top - jax.nn.logsumexp(logits, axis=-1)), 1.0)

    return functional


def top_k_correct(k: int) -> Functional:
    """Returns a functional for `readout`: 1 where the target is among the k most probable, else 0.

    Example:
        >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
        >>> print(top_k_correct(2)(logits, jnp.array([1])))
        [1.]
    """
    k = require_whole("k", k, 1)

    def functional(logits: jax.Array, labels: jax.Array) -> jax.Array:
        among = jax.lax.top_k(logits, k)[1] == labels[:, None]
        return jnp.any(among, axis=-1).astype(jnp.float32)

    return functional
