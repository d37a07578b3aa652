"""Mass calibration: is a group of the vocabulary the target as often as the model says?

What a model gives to a group of tokens, such as the rarest tenth, is compared with how often the
target lies there. Nothing is selected by what came, so that a perfect model's gaps are 0 but for
noise. Grouping predictions by the *target's* group instead selects by the outcome: of what is
improbable, only that which happened is counted, and even a perfect model seems wrong.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from calibtrain.metrics.arguments import (
    AnyArray,
    as_array,
    is_traced,
    traced_labels,
    whole_numbers,
)
from calibtrain.metrics.vocabulary import Functional, distributions, fitting_rows


class MassCalibration(NamedTuple):
    """Predicted and observed share of each group of the vocabulary.

    Attributes:
        predicted: mean probability of the group, in [0, 1].
        observed: share of the targets that lie in the group, in [0, 1].
    """

    predicted: Float[AnyArray, " groups"]
    observed: Float[AnyArray, " groups"]

    @property
    def gap(self) -> Float[AnyArray, " groups"]:
        """Predicted minus observed share, in [-1, 1]; the gaps of all groups add up to 0."""
        return self.predicted - self.observed


def mass_calibration(
    probabilities: Float[AnyArray, "tokens vocab"],
    labels: Int[AnyArray, " tokens"],
    groups: Int[np.ndarray, " vocab"],
    *,
    weights: Float[AnyArray, " tokens"] | None = None,
) -> MassCalibration:
    """Returns how much probability each group of the vocabulary gets, and how often it is right.

    predicted_D = 1/W sum_t w_t sum_{v in D} p_t(v), and observed_D = 1/W sum_t w_t [y_t in D], with
    W = sum_t w_t. Given the past, the expectation of [y_t in D] under the model is
    sum_{v in D} p_t(v), so that the gap of a calibrated model has expectation 0 in every group.
    It is the Full-ECE's (or classwise ECE's) gap with classes merged into groups and one bin.

    Args:
        probabilities: one distribution per token.
        labels: target of each token.
        groups: group of each entry of the vocabulary, from 0; known outside of `jax.jit`.
        weights: weight of each token; default 1.

    Returns:
        Shares of the groups in [0, 1], without a unit; their gap is in [-1, 1].

    Raises:
        ValueError: for groups that are not one whole number per entry; otherwise as
            `classwise_calibration_error` does.

    Example:
        >>> probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
        >>> found = mass_calibration(probabilities, [0, 1], [0, 1, 1])
        >>> print(found.predicted.round(4), found.observed, found.gap.round(4))
        [0.7 0.3] [0.5 0.5] [ 0.2 -0.2]

    References:
        Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multi-class
        probabilities with Dirichlet calibration", NeurIPS 2019 (class-wise calibration; here of
        groups of classes, over all tokens at once: calibration in the large).
    """
    probabilities, labels, weights = fitting_rows("probabilities", probabilities, labels, weights)
    membership = _membership(groups, probabilities.shape[1])
    if is_traced(probabilities, labels, weights):
        labels = traced_labels("labels", labels)
        weights = jnp.asarray(weights, jnp.float32)
        share = weights / weights.sum()
        known = jnp.where(weights[:, None] > 0, probabilities, 0.0)
        mean = jnp.matmul(share, jnp.asarray(known, jnp.float32), precision="highest")
        of_labels = jnp.matmul(share, jnp.asarray(membership)[labels], precision="highest")
        return MassCalibration(
            jnp.matmul(mean, membership.astype(np.float32), precision="highest"), of_labels
        )
    predicted, observed, total = 0.0, 0.0, 0.0
    for part, label, weight in distributions(probabilities, labels, weights):
        predicted += weight @ part @ membership
        observed += weight @ membership[label]
        total += weight.sum()
    return MassCalibration(predicted / total, observed / total)


def group_mass(groups: Int[np.ndarray, " vocab"]) -> Functional:
    """Returns a functional for `readout`: the probability that a token gives to each group.

    It gives [tokens, groups], and so never an array of tokens x vocabulary but in the chunk whose
    logits `readout` holds anyway.

    Args:
        groups: group of each entry of the vocabulary, from 0. Columns of logits that pad the
            vocabulary have no probability and need no group.

    Example:
        >>> logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
        >>> print(group_mass(np.array([0, 1, 1]))(logits, jnp.array([1])).round(4))
        [[0.7 0.3]]
    """
    membership = _membership(groups, len(groups))

    def functional(logits: jax.Array, labels: jax.Array) -> jax.Array:
        padding = logits.shape[-1] - len(membership)
        members = np.pad(membership, [(0, padding), (0, 0)]).astype(np.float32)
        top = jnp.max(logits, axis=-1, keepdims=True)
        masses = jnp.matmul(jnp.exp(logits - top), members, precision="highest")
        return masses / jnp.sum(masses, axis=-1, keepdims=True)

    return functional


def _membership(groups: Any, vocab: int) -> Float[np.ndarray, "vocab groups"]:
    """Returns 1 where an entry of the vocabulary belongs to a group, else 0."""
    groups = as_array("groups", groups)
    if is_traced(groups):
        raise ValueError("groups: must be known outside of jax.jit, as an array of NumPy")
    if groups.shape != (vocab,):
        raise ValueError(f"groups: shape {groups.shape} must be {(vocab,)}, one for each entry")
    groups = whole_numbers("groups", groups, vocab)
    return np.eye(int(groups.max()) + 1)[groups]
