"""Strata: the same events, cut by what they are about, so that pooling hides none of them.

Each stratum cuts all scored events into groups: by how frequent the target is, by how far into the
document it stands, by how uncertain the model is, and by the group of its document.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from calibtrain.errors import SettingError

DECILES = 10
MOST_GROUPS = 200
"""Groups of documents that results are given by."""
POSITION_EDGES = (64, 256, 1024, 4096)
"""Bytes of the document before the event: in bytes, so that vocabularies agree on them."""
ENTROPY_EDGES = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
"""Bits, of the model's own predictive distribution."""


@dataclasses.dataclass(frozen=True)
class Stratum:
    """One way to cut the events.

    Attributes:
        name: of the table in the results.
        labels: of its groups, in their order.
    """

    name: str
    labels: tuple[str, ...]


def band_labels(edges: Sequence[float], unit: str) -> tuple[str, ...]:
    """Labels of the bands that edges make: up to the first, between two, from the last on."""
    shown = [f"{edge:g}" for edge in edges]
    between = [f"{low}–{high} {unit}" for low, high in itertools.pairwise(shown)]
    return (f"below {shown[0]} {unit}", *between, f"{shown[-1]} {unit} and more")


FREQUENCY = Stratum("frequency_deciles", tuple(str(decile) for decile in range(1, DECILES + 1)))
POSITION = Stratum("positions", band_labels(POSITION_EDGES, "bytes"))
ENTROPY = Stratum("entropy_bands", band_labels(ENTROPY_EDGES, "bits"))


def document_groups(groups: Sequence[str]) -> tuple[Stratum, Int[np.ndarray, " documents"]] | None:
    """The stratum of the documents' groups, and which each belongs to; None where there are none.

    Args:
        groups: of each document; "" where it has none.

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
    return Stratum("groups", tuple(name or "(none)" for name in names)), members


def position_band(before: Int[np.ndarray, "*events"]) -> Int[np.ndarray, "*events"]:
    """The band of events with so many bytes of their document before them."""
    return np.searchsorted(POSITION_EDGES, before, side="right")


def entropy_band(entropy: Float[np.ndarray, "*events"]) -> Int[np.ndarray, "*events"]:
    """The band of events with so much predictive entropy, in nats."""
    return np.searchsorted(ENTROPY_EDGES, np.asarray(entropy) / np.log(2), side="right")
