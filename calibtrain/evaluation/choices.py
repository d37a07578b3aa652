"""Scores of events whose whole predictive distribution is known, such as choices and bytes."""

import numpy as np
from jaxtyping import Float, Int


def choice_columns(
    probability: Float[np.ndarray, "events choices"],
    logs: Float[np.ndarray, "events choices"] | None,
    label: Int[np.ndarray, " events"],
) -> Float[np.ndarray, "events columns"]:
    """Returns `event_sums.COLUMNS` of each event, from its predictive distribution p.

    nll is -log p of what came and entropy -sum p log p, in nats; the confidence is the largest p,
    and of equal ones the first counts as predicted; the Brier score is 1 - 2 p_label + sum p^2.

    Args:
        probability: p; its rows sum to 1.
        logs: log p, where it is known better than p, whose small values may be 0; None means the
            logarithm of p. -inf stands for a choice of probability 0, and is an nll of inf.
        label: index of what came.

    Example:
        >>> p = np.array([[0.5, 0.25, 0.25]])
        >>> print(choice_columns(p, None, np.array([0])).round(4))
        [[0.6931 1.0397 0.5    1.     0.375 ]]
    """
    rows, possible = np.arange(len(label)), probability > 0
    if logs is None:
        with np.errstate(divide="ignore"):
            logs = np.log(probability)
    entropy = -(probability * np.where(possible, logs, 0.0)).sum(axis=-1)
    best = probability.argmax(axis=-1)
    return np.column_stack(
        [
            -logs[rows, label],
            entropy,
            probability[rows, best],
            best == label,
            1 - 2 * probability[rows, label] + np.square(probability).sum(axis=-1),
        ]
    )
