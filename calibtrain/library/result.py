"""`EvaluationResult`: what an evaluation found, as figures with intervals, and tables."""

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from calibtrain.errors import UserError
from calibtrain.library.table import Table
from calibtrain.metrics.quantities import QUANTITIES
from calibtrain.runs.document_rows import document_table, read_documents
from calibtrain.runs.evaluation_records import EvaluationRecord

if TYPE_CHECKING:
    import pandas
    import pyarrow

    from calibtrain.evaluation.result import Evaluation

HEADLINE = ("bits_per_byte", "nll", "accuracy", "ece", "signed_gap", "entropy_rate")
"""The figures that the repr of a result shows."""


@dataclass(frozen=True)
class Figure:
    """One figure of an evaluation; `float(figure)` is its value.

    Attributes:
        value: its estimate.
        lower, upper: its 95 % interval over documents; None where there is none.
        unit: such as `nats/token`; "" for a plain number.
        signature: how it was computed; figures compare where their signatures agree.
        bound: how far it may be off for having been read from a histogram; None where it is exact.

    Example:
        >>> Figure(0.0314, 0.0271, 0.0362, "0 to 1")
        0.0314 [0.0271, 0.0362]
    """

    value: float
    lower: float | None = None
    upper: float | None = None
    unit: str = ""
    signature: str | None = None
    bound: float | None = None

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        if self.lower is None or self.upper is None:
            return f"{self.value:.4f}"
        return f"{self.value:.4f} [{self.lower:.4f}, {self.upper:.4f}]"


class EvaluationResult:
    """A run's evaluation: `figures` by name, tables, and the record that its file holds.

    Attributes:
        record: what the JSON file beside the run holds.
    """

    def __init__(self, record: EvaluationRecord, documents: "Mapping[str, Any] | Path | None"):
        """Args:
        record: of the evaluation.
        documents: columns of a row per document, or the Parquet file that holds them.
        """
        self.record, self._documents = record, documents

    @classmethod
    def of(cls, evaluation: "Evaluation") -> "EvaluationResult":
        """Returns the result of an evaluation that was just made."""
        return cls(evaluation.record(), evaluation.documents)

    @classmethod
    def read(cls, path: Path) -> "EvaluationResult":
        """Returns the result in a JSON file, whose documents are in the Parquet file beside it.

        Raises:
            UserError: where it is missing, damaged or of another format.
        """
        return cls(EvaluationRecord.read(path), path.with_suffix(".parquet"))

    @property
    def event(self) -> str:
        """What was predicted: token, byte or word."""
        return self.record.event

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know, one sentence each."""
        return list(self.record.notes or ())

    @cached_property
    def figures(self) -> Mapping[str, Figure]:
        """Every single figure that the events have, by the key that files and `--json` use."""
        record, found = self.record, {}
        for key, value in record.numbers.items():
            quantity, signature = QUANTITIES.get(key), record.signature(key)
            if quantity is None and signature is None:
                continue  # says how the figures were made, such as the step
            interval = record.interval(key)
            found[key] = Figure(
                float(value),
                None if interval is None else interval.lower,
                None if interval is None else interval.upper,
                "" if quantity is None else quantity.unit_of(self.event),
                signature,
                (record.bounds or {}).get(key),
            )
        return found

    def __getitem__(self, key: str) -> Figure:
        """Returns a figure: `result["ece"]` is `result.figures["ece"]`.

        Raises:
            KeyError: for a name that no figure has.
        """
        if key not in self.figures:
            raise KeyError(f"{key!r}: is no figure; there are {', '.join(self.figures)}")
        return self.figures[key]

    @property
    def reliability(self) -> Table:
        """Bins of confidence: lower, upper, tokens (events in it), confidence, accuracy."""
        return self.tables["reliability"]

    @property
    def strata(self) -> Mapping[str, Table]:
        """Tables by groups of events, such as `positions`: each group has a row of figures."""
        return {name: self.tables[name] for name in self.record.strata}

    @cached_property
    def tables(self) -> Mapping[str, Table]:
        """Every table of the record, by name; a figure's interval is in `FIGURE_lower, _upper`."""
        found = {}
        for name, rows in self.record.document().items():
            if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
                found[name] = Table.of_rows(map(_flat, rows))
        return found

    @cached_property
    def documents(self) -> Table:
        """A row per document: bytes, tokens, sums of nll and entropy (nats) and the like, and bins.

        The columns are those of `runs.document_rows`; `documents["bin_events"]` is an array
        [documents, bins].

        Raises:
            UserError: where the Parquet file is missing, damaged or that of another evaluation.
        """
        if not isinstance(self._documents, PurePath):  # a place in a bucket is one too
            return Table(document_table(self._documents or {}))
        found = Table(read_documents(self._documents))
        if len(found) != self.record.documents:
            raise UserError(
                f"{self._documents}: has {len(found):,} documents, the evaluation beside it "
                f"{self.record.documents:,}; evaluate again"
            )
        return found

    def to_arrow(self) -> "pyarrow.Table":
        """Returns the figures as Arrow: figure, value, lower, upper, unit, signature."""
        return self._table.to_arrow()

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns the figures as a data frame, as `to_arrow` does.

        Raises:
            UserError: where pandas is not installed.
        """
        return self._table.to_pandas()

    @property
    def _table(self) -> Table:
        names = ("value", "lower", "upper", "unit", "signature")
        return Table.of_rows(
            {"figure": key, **{name: getattr(figure, name) for name in names}}
            for key, figure in self.figures.items()
        )

    def _title(self) -> str:
        record = self.record
        tempered = f", {record.tempered}" if record.tempered else ""
        many = {"bytes": record.get("bytes"), "documents": record.documents}
        size = ", ".join(f"{count:,.0f} {name}" for name, count in many.items() if count)
        where = f"{record.corpus}-{record.split} by {self.event} at step {record.step:,}"
        return f"{where}{tempered}: {size}"

    def _headline(self) -> Iterator[tuple[str, str, str]]:
        for key in (key for key in HEADLINE if key in self.figures):
            figure, quantity = self.figures[key], QUANTITIES[key]
            yield quantity.name, repr(figure), figure.unit

    def __repr__(self) -> str:
        rows = list(self._headline())
        lines = [f"  {name:<14} {figure:<26} {unit}".rstrip() for name, figure, unit in rows]
        notes = [f"  note: {note}" for note in self.notes]
        return "\n".join([f"<EvaluationResult {self._title()}", *lines, *notes]) + ">"

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self._headline()
        )
        notes = "".join(f"<p>note: {html.escape(note)}</p>" for note in self.notes)
        return f"<b>{html.escape(self._title())}</b><table>{rows}</table>{notes}"


def measure(
    confidence: Any = None,
    correct: Any = None,
    *,
    log_probabilities: Any = None,
    label: Any = None,
    documents: Any = None,
    groups: Any = None,
    bins: int = 15,
    name: str = "predictions",
) -> EvaluationResult:
    """Returns the calibration of predictions that any model made.

    Give `confidence` and `correct`, or `log_probabilities` and `label`. Arrays may be those of
    NumPy, JAX, PyTorch, pandas, Polars or Arrow, or lists.

    Args:
        confidence: [predictions], the probability given to each prediction, in [0, 1].
        correct: [predictions], whether it was right.
        log_probabilities: [predictions, choices], in nats, up to a constant per row.
        label: [predictions], the index of the right choice, counted from 0.
        documents: [predictions], what belongs together; intervals are over documents. Default:
            each prediction is one.
        groups: [predictions]; results are given by group too.
        bins: equal-width bins of the ECE; a divisor of 480.
        name: what the predictions are called in the result.

    Raises:
        ValueError: naming the argument, for values that are not allowed, or lengths that differ.
        UserError: for bins or a number of groups that are not allowed.

    Example:
        >>> measure([0.9, 0.8, 0.7, 0.6], [1, 1, 1, 0])["area_under_roc"].value
        1.0
    """
    from calibtrain.evaluation.predictions import measure as measured

    return EvaluationResult.of(
        measured(
            confidence,
            correct,
            log_probabilities=log_probabilities,
            label=label,
            documents=documents,
            groups=groups,
            bins=bins,
            name=name,
        )
    )


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row of a table with its intervals as columns, beside the figures they are of."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if key == "intervals":
            for name, interval in (value or {}).items():
                found[f"{name}_lower"] = interval and interval["lower"]
                found[f"{name}_upper"] = interval and interval["upper"]
        else:
            found[key] = value
    return found
