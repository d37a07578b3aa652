"""Strata: ways to cut the scored events into groups, so that pooling hides none of them.

Events are cut by how frequent the predicted token is, by how far into the document they stand, by
how uncertain the model is, and by the group of their document. All of these are known before
anything comes, so that a perfect model has no gap in any group. `FREQUENCY` alone cuts by the token
that came: it selects by the outcome, and its rows stand beside what a perfect model would show.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from calibtrain.errors import SettingError
from calibtrain.evaluation.event_sums import ScoredEvents, Stratum

DECILES = 10
MOST_GROUPS = 200
"""The largest number of groups of documents that results are given by."""
POSITION_EDGES = (64, 256, 1024, 4096)
"""Bytes of the document before the event, so that the bands are the same for every vocabulary."""
ENTROPY_EDGES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
"""Bits of entropy of the model's own predictive distribution."""


CONFIDENCE_EDGES = (0.25, 0.5, 0.75, 0.9, 0.99)
"""Confidences; the high ones apart, where a gap costs most."""


def band_labels(edges: Sequence[float], unit: str = "") -> tuple[str, ...]:
    """Labels of the bands between edges, the first open below and the last open above."""
    shown, unit = [f"{edge:g}" for edge in edges], unit and f" {unit}"
    between = [f"{low}–{high}{unit}" for low, high in itertools.pairwise(shown)]
    return (f"below {shown[0]}{unit}", *between, f"{shown[-1]}{unit} and more")


def position_band(before: Int[np.ndarray, "*events"]) -> Int[np.ndarray, "*events"]:
    """The band of events with so many bytes of their document before them."""
    return np.searchsorted(POSITION_EDGES, before, side="right")


def entropy_band(entropy: Float[np.ndarray, "*events"]) -> Int[np.ndarray, "*events"]:
    """The band of events with so much predictive entropy, in nats."""
    return np.searchsorted(ENTROPY_EDGES, np.asarray(entropy) / np.log(2), side="right")


def _decile(events: ScoredEvents) -> Int[np.ndarray, " events"]:
    assert events.decile is not None
    return events.decile


def _predicted(events: ScoredEvents) -> Int[np.ndarray, " events"]:
    assert events.predicted is not None
    return events.predicted


def _position(events: ScoredEvents) -> Int[np.ndarray, " events"]:
    assert events.before is not None
    return position_band(events.before)


def _entropy(events: ScoredEvents) -> Int[np.ndarray, " events"]:
    return entropy_band(events.column("entropy"))


def _confidence(events: ScoredEvents) -> Int[np.ndarray, " events"]:
    return np.searchsorted(CONFIDENCE_EDGES, events.column("confidence"), side="right")


_DECILES = tuple(str(decile) for decile in range(1, DECILES + 1))
FREQUENCY = Stratum("frequency_deciles", _DECILES, _decile)
PREDICTION = Stratum("predicted_frequency", _DECILES, _predicted)
POSITION = Stratum("positions", band_labels(POSITION_EDGES, "bytes"), _position)
CONFIDENCE = Stratum("confidence_bands", band_labels(CONFIDENCE_EDGES), _confidence)
ENTROPY = Stratum("entropy_bands", band_labels(ENTROPY_EDGES, "bits"), _entropy)


def document_groups(groups: Sequence[str]) -> Stratum | None:
    """The stratum of the documents' groups; None where no document has a group.

    Args:
        groups: the group of each document; "" where it has none.

    Raises:
        UserError: for more groups than results can be given by.
    """
    names = sorted(set(groups))
    if names in ([], [""]):
        return None
    if len(names) > MOST_GROUPS:
        raise SettingError(
            "",
            "corpus.group",
            f": makes {len(names):,} groups of {len(groups):,} documents; at most "
            f"{MOST_GROUPS} are allowed: name a field with fewer values, or none",
        )
    place = {name: index for index, name in enumerate(names)}
    members = np.array([place[group] for group in groups])
    labels = tuple(name or "(none)" for name in names)
    return Stratum("groups", labels, lambda events: members[events.document])
