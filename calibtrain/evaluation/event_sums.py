"""Scored events and their sums: by document, by stratum, by confidence.

An event is one prediction, whatever was predicted (a token, a byte, a word). All results are read
from the sums.

The host adds events up in float64, so that neither the batches nor the devices that scored them
change a result.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from calibtrain.metrics.calibration import bin_edges
from calibtrain.metrics.histogram import CELLS, ConfidenceHistogram, cell_middles
from calibtrain.metrics.jackknife import effective_documents
from calibtrain.runs.document_rows import MOST_CELLS

COLUMNS = ("nll", "entropy", "confidence", "correct", "multiclass_brier")
"""The scores of an event: nats, nats, probability, 1 or 0, 1 - 2 p_y + sum of p^2.

Events of some kinds have no entropy and no multiclass Brier score, and predictions of which only
the confidence is known have no nll either. These columns are then NaN for all events, and so is
every sum over them.
"""

COARSE = 480
"""Cells of confidence that are kept for each block: a tenth of those of the whole."""

MAX_BLOCKS = 300
"""Intervals are over blocks of neighbouring documents, at most so many."""

N, NLL, ENTROPY, CONFIDENCE, CORRECT, BRIER, BYTES = range(7)
"""Columns of `EventSums.blocks`: the number of events, the sums of `COLUMNS`, and bytes of text."""


@dataclasses.dataclass(frozen=True)
class ScoredEvents:
    """Events in any order, with their scores and what the strata cut them by.

    Attributes:
        document: index of the document that each event belongs to.
        values: `COLUMNS` of each event.
        before: bytes of the document before each event; None where no stratum reads it.
        decile: frequency decile 0..9 of the token that came; None for other events.
        predicted: frequency decile of the likeliest token; None where no stratum reads it.
        word: bytes of the likeliest word, after the white space before it; None for other events.
        further: more numbers that are added up by block of documents; None where there are none.
    """

    document: Int[np.ndarray, " events"]
    values: Float[np.ndarray, "events columns"]
    before: Int[np.ndarray, " events"] | None = None
    decile: Int[np.ndarray, " events"] | None = None
    predicted: Int[np.ndarray, " events"] | None = None
    word: Shaped[np.ndarray, " events"] | None = None
    further: Float[np.ndarray, "events further"] | None = None

    def column(self, name: str) -> Float[np.ndarray, " events"]:
        """One of `COLUMNS`, of each event."""
        return self.values[:, COLUMNS.index(name)]


@dataclasses.dataclass(frozen=True)
class Stratum:
    """One way to cut the events.

    Attributes:
        name: name of its table in the results.
        labels: labels of its groups, in order.
        group_of: returns the index of the group that each event belongs to.
    """

    name: str
    labels: tuple[str, ...]
    group_of: Callable[[ScoredEvents], Int[np.ndarray, " events"]]


class StratumSums(NamedTuple):
    """Sums over the events of each block and group of a stratum.

    Attributes:
        stratum: how events are cut.
        likelihood: number of events, sum of nll and sum of entropy.
        tables: a reliability table each: number of events, sums of confidence and correctness.
    """

    stratum: Stratum
    likelihood: Float[np.ndarray, "blocks groups 3"]
    tables: Float[np.ndarray, "blocks groups bins 3"]


class EventSums:
    """Sums over events, added as they are scored.

    Attributes:
        documents: number of events and sums of `COLUMNS`, by document.
        coarse: a histogram of `COARSE` cells of confidence, by block of documents.
        tables: a reliability table, by block.
        document_tables: the same by chosen document; None where there are too many.
        strata: sums by stratum, under its name.
        further: sums of `ScoredEvents.further`, by block; None where there are none.
    """

    def __init__(
        self,
        document_bytes: Int[np.ndarray, " documents"],
        chosen: Int[np.ndarray, " chosen"],
        strata: Sequence[Stratum],
        bins: int,
        precision: Any = np.float32,
    ):
        """Args:
        document_bytes: bytes of text of each document.
        chosen: the documents that are scored.
        strata: the ways in which events are cut.
        bins: equal-width bins of the reliability tables; they divide the cells.
        precision: type in which confidences were computed, so that an edge is an edge.
        """
        documents, count = len(document_bytes), min(MAX_BLOCKS, len(chosen))
        self._place = np.full(documents, -1)
        self._place[chosen] = np.arange(len(chosen))
        blocks = self._place * count // max(1, len(chosen))
        self._block = np.where(self._place < 0, -1, blocks)
        self.document_bytes, self._bins = document_bytes, bins
        self.documents: Float[np.ndarray, "documents 6"] = np.zeros((documents, 1 + len(COLUMNS)))
        self._fine = np.zeros((CELLS, 5))
        self.coarse: Float[np.ndarray, "blocks coarse 5"] = np.zeros((count, COARSE, 5))
        self.tables: Float[np.ndarray, "blocks bins 3"] = np.zeros((count, bins, 3))
        self.document_tables: Float[np.ndarray, "chosen bins 3"] | None = None
        if count == len(chosen):  # a block is a document
            self.document_tables = self.tables
        elif len(chosen) * bins <= MOST_CELLS:
            self.document_tables = np.zeros((len(chosen), bins, 3))
        self.strata = {
            stratum.name: StratumSums(
                stratum,
                np.zeros((count, len(stratum.labels), 3)),
                np.zeros((count, len(stratum.labels), bins, 3)),
            )
            for stratum in strata
        }
        self.further: Float[np.ndarray, "blocks further"] | None = None
        self._middles = cell_middles(CELLS).astype(np.float64)
        self._precision = np.dtype(precision)
        self._edges = bin_edges(CELLS, self._precision)[1:-1]

    def add(self, events: ScoredEvents) -> None:
        """Adds events."""
        values = np.asarray(events.values, np.float64)
        ones = np.ones(len(values))
        _add(self.documents, events.document, np.column_stack([ones, values]))
        block = self._block[events.document]
        nll, entropy, c, y = values.T[:4]
        given = c.astype(self._precision).astype(self._edges.dtype)
        cell = np.searchsorted(self._edges, given, side="left")
        moments = np.column_stack([ones, c, y, c * c, c * y])
        d = c - self._middles[cell]
        _add(self._fine, cell, np.column_stack([ones, d, y, d * d, d * y]))
        _add(self.coarse, block * COARSE + cell // (CELLS // COARSE), moments)
        bin_ = cell // (CELLS // self._bins)
        _add(self.tables, block * self._bins + bin_, moments[:, :3])
        if self.document_tables is not None and self.document_tables is not self.tables:
            place = self._place[events.document]
            _add(self.document_tables, place * self._bins + bin_, moments[:, :3])
        likelihood = np.column_stack([ones, nll, entropy])
        for stratum, sums, tables in self.strata.values():
            member = block * len(stratum.labels) + stratum.group_of(events)
            _add(sums, member, likelihood)
            _add(tables, member * self._bins + bin_, moments[:, :3])
        if events.further is not None:
            if self.further is None:
                self.further = np.zeros((len(self.tables), events.further.shape[1]))
            _add(self.further, block, events.further)

    @property
    def blocks(self) -> Float[np.ndarray, "blocks 7"]:
        """Number of events, sums of `COLUMNS` and bytes of text, by block of documents."""
        blocks = np.zeros((len(self.tables), self.documents.shape[1]))
        scored = self._block >= 0
        block = self._block[scored]
        _add(blocks, block, self.documents[scored])
        raw_bytes = np.bincount(block, self.document_bytes[scored], minlength=len(blocks))
        return np.column_stack([blocks, raw_bytes])

    @property
    def effective_documents(self) -> float:
        """How many documents of equal size would tell as much as those that were scored."""
        return effective_documents(self.documents[:, N])

    @property
    def histogram(self) -> ConfidenceHistogram:
        """The fine histogram of confidence of all events."""
        return ConfidenceHistogram(self._fine)


def _add(
    target: Float[np.ndarray, "*rows columns"],
    row: Int[np.ndarray, " events"],
    values: Float[np.ndarray, "events columns"],
) -> None:
    """Adds each event's values to its row; rows are counted over all axes but the last."""
    columns = values.shape[1]
    flat = target.reshape(-1)
    for column in range(columns):
        np.add.at(flat, row * columns + column, values[:, column])
