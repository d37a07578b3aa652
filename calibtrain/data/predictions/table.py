"""Predictions of any model as checked columns, whatever they were read from."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int


@dataclasses.dataclass(frozen=True)
class Judged:
    """Predictions of which the confidence is known, and whether they were right.

    Attributes:
        confidence: in [0, 1], in the precision in which it was given.
        correct: 1 or 0.
    """

    confidence: Float[np.ndarray, " n"]
    correct: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.confidence)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Both columns."""
        return self.confidence, self.correct


@dataclasses.dataclass(frozen=True)
class Choices:
    """Predictions that are one of several choices.

    Attributes:
        log_probabilities: in nats, up to a constant per row; -inf for a choice that cannot be, and
            where a row has fewer choices than others.
        label: index of the right choice.
    """

    log_probabilities: Float[np.ndarray, "n choices"]
    label: Int[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Both columns."""
        return self.log_probabilities, self.label


@dataclasses.dataclass(frozen=True)
class PredictionTable:
    """Checked predictions and what is known of them.

    Attributes:
        name: what they are called in results.
        content_hash: hex digits of a hash of what they were read from.
        scores: their confidences, or log-probabilities of choices.
        documents: the document of each; empty: each is a document of its own.
        groups: the group of each; empty: results are not given by group.
        notes: what a reader of the results must know, one sentence each.
    """

    name: str
    content_hash: str
    scores: Judged | Choices
    documents: Sequence[str] = ()
    groups: Sequence[str] = ()
    notes: Sequence[str] = ()
