"""Sums over scored events: by document, by stratum, by confidence. All results are read from them.

An event is whatever is predicted (a token, a byte, a word) with its nll, entropy, confidence and
correctness. The host adds them up in float64, so that neither the batches nor the devices that
scored them change a result.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from calibtrain.evaluation.strata import Stratum
from calibtrain.metrics.calibration import bin_edges
from calibtrain.metrics.histogram import CELLS, ConfidenceHistogram, cell_middles

COLUMNS = ("nll", "entropy", "confidence", "correct", "multiclass_brier")
"""What is told of an event: nats, nats, probability, 1 or 0, 1 - 2 p_y + sum of p^2.

Events may have no entropy and no multiclass Brier score: then these are NaN of all events, and of
every sum over them.
"""

COARSE = 480
"""Cells of confidence that are kept for each block: a tenth of those of the whole."""

BLOCKS = 300
"""Documents are drawn by the bootstrap in at most so many blocks of neighbours."""

_NLL, _ENTROPY, _CONFIDENCE, _CORRECT = range(4)


@dataclasses.dataclass(frozen=True)
class Sums:
    """What a `Tally` holds at the end.

    Attributes:
        documents: of each document, the number of events and the sums of `COLUMNS`.
        blocks: the same of each block of documents that were scored.
        histogram: of all events.
        coarse: of each block, a histogram of `COARSE` cells.
        tables: of each block, a reliability table of the bins asked for.
        strata: of each stratum and block, for each of its groups, the number of events, the sums
            of nll and entropy, and a reliability table.
    """

    documents: Float[np.ndarray, "documents 6"]
    blocks: Float[np.ndarray, "blocks 6"]
    histogram: ConfidenceHistogram
    coarse: Float[np.ndarray, "blocks coarse 5"]
    tables: Float[np.ndarray, "blocks bins 3"]
    strata: Mapping[str, tuple[Stratum, Float[np.ndarray, "blocks groups 3"], Any]]


class Tally:
    """Adds up events as they are scored."""

    def __init__(
        self,
        chosen: Int[np.ndarray, " chosen"],
        documents: int,
        strata: Sequence[Stratum],
        bins: int,
    ):
        """Args:
        chosen: the documents that are scored.
        documents: how many there are in all.
        strata: the ways in which events are cut.
        bins: equal-width bins of the reliability tables; they divide the cells.
        """
        count = min(BLOCKS, len(chosen))
        self._block = np.full(documents, -1)
        self._block[chosen] = np.arange(len(chosen)) * count // max(1, len(chosen))
        self.bins = bins
        self._documents = np.zeros((documents, 1 + len(COLUMNS)))
        self._fine = np.zeros((CELLS, 5))
        self._coarse = np.zeros((count, COARSE, 5))
        self._tables = np.zeros((count, bins, 3))
        self._strata = {
            stratum.name: (
                stratum,
                np.zeros((count, len(stratum.labels), 3)),
                np.zeros((count, len(stratum.labels), bins, 3)),
            )
            for stratum in strata
        }
        self._middles = cell_middles(CELLS).astype(np.float64)
        self._edges = bin_edges(CELLS, np.dtype(np.float32))[1:-1]

    def add(
        self,
        documents: Int[np.ndarray, " events"],
        values: Float[np.ndarray, "events columns"],
        groups: Mapping[str, Int[np.ndarray, " events"]],
    ) -> None:
        """Add events.

        Args:
            documents: of which each event is.
            values: `COLUMNS` of each.
            groups: of each, by the name of the stratum.
        """
        values = np.asarray(values, np.float64)
        ones = np.ones(len(values))
        _add(self._documents, documents, np.column_stack([ones, values]))
        block = self._block[documents]
        # in float32, as the device computed it, so that an edge is an edge
        confidence = values[:, _CONFIDENCE].astype(np.float32)
        cell = np.searchsorted(self._edges, confidence, side="left")
        c, y = values[:, _CONFIDENCE], values[:, _CORRECT]
        moments = np.column_stack([ones, c, y, c * c, c * y])
        d = c - self._middles[cell]
        _add(self._fine, cell, np.column_stack([ones, d, y, d * d, d * y]))
        _add(self._coarse, block * COARSE + cell // (CELLS // COARSE), moments)
        bin_ = cell // (CELLS // self.bins)
        _add(self._tables, block * self.bins + bin_, moments[:, :3])
        likelihood = np.column_stack([ones, values[:, _NLL], values[:, _ENTROPY]])
        for name, (stratum, sums, tables) in self._strata.items():
            member = block * len(stratum.labels) + groups[name]
            _add(sums, member, likelihood)
            _add(tables, member * self.bins + bin_, moments[:, :3])

    def of_blocks(self, amounts: Int[np.ndarray, " documents"]) -> Int[np.ndarray, " blocks"]:
        """What the documents of each block have in all of something, such as bytes."""
        scored = self._block >= 0
        return np.bincount(
            self._block[scored], weights=amounts[scored], minlength=len(self._tables)
        )

    def sums(self) -> Sums:
        """All that was added."""
        blocks = np.zeros((len(self._tables), self._documents.shape[1]))
        scored = self._block >= 0
        _add(blocks, self._block[scored], self._documents[scored])
        return Sums(
            documents=self._documents,
            blocks=blocks,
            histogram=ConfidenceHistogram(self._fine),
            coarse=self._coarse,
            tables=self._tables,
            strata=self._strata,
        )


def _add(
    target: Float[np.ndarray, "*rows columns"],
    row: Int[np.ndarray, " events"],
    values: Float[np.ndarray, "events columns"],
) -> None:
    """Add each event's values to its row, rows counted over all axes but the last."""
    columns = values.shape[1]
    flat = target.reshape(-1)
    for column in range(columns):
        np.add.at(flat, row * columns + column, values[:, column])
