"""Scored events: what is known of each prediction, whatever was predicted (token, byte, word)."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

COLUMNS = ("nll", "entropy", "confidence", "correct", "multiclass_brier")
"""The scores of an event: nats, nats, probability, 1 or 0, 1 - 2 p_y + sum of p^2.

Events of some kinds have no entropy and no multiclass Brier score. These columns are then NaN for
all events, and so is every sum over them.
"""


@dataclasses.dataclass(frozen=True)
class ScoredEvents:
    """Events in any order, with their scores and what the strata cut them by.

    Attributes:
        document: index of the document that each event belongs to.
        values: `COLUMNS` of each event.
        before: bytes of the document before each event; None where no stratum reads it.
        decile: frequency decile 0..9 of the token that is predicted; None for other events.
    """

    document: Int[np.ndarray, " events"]
    values: Float[np.ndarray, "events columns"]
    before: Int[np.ndarray, " events"] | None = None
    decile: Int[np.ndarray, " events"] | None = None

    def column(self, name: str) -> Float[np.ndarray, " events"]:
        """One of `COLUMNS`, of each event."""
        return self.values[:, COLUMNS.index(name)]


def joined(parts: Sequence[ScoredEvents]) -> ScoredEvents:
    """The events of all parts, one part after another."""
    before = [part.before for part in parts if part.before is not None]
    decile = [part.decile for part in parts if part.decile is not None]
    return ScoredEvents(
        document=np.concatenate([part.document for part in parts]),
        values=np.concatenate([part.values for part in parts]),
        before=np.concatenate(before) if before else None,
        decile=np.concatenate(decile) if decile else None,
    )
