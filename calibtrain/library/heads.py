"""Temperature heads of a run as objects: one that was fitted, and several compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from calibtrain.library.table import Table
from calibtrain.runs.records import HeadComparisonRecord

if TYPE_CHECKING:
    import pandas
    import pyarrow


@dataclass(frozen=True, repr=False)
class Head:
    """A head that was fitted to a run; `run.evaluate(temperature=head)` measures it.

    Attributes:
        about: what its head.json says.
    """

    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        """By which the run knows it."""
        return self.about["name"]

    @property
    def kind(self) -> str:
        """One of `config.HEADS`, such as global, vector, matrix or linear."""
        return self.about["temperature"]["kind"]

    @property
    def parameters(self) -> int:
        """How many parameters it has."""
        return self.about["parameters"]

    @property
    def value(self) -> float | None:
        """The temperature itself, if it is a single one."""
        return self.about.get("value")

    @property
    def nll_before(self) -> float:
        """Nats per token of the text it was fitted on, without it."""
        return self.about["nll_before"]

    @property
    def nll_after(self) -> float:
        """Nats per token of the text it was fitted on, with it."""
        return self.about["nll_after"]

    def __repr__(self) -> str:
        on, value = self.about["fitted_on"], self.value
        temperature = "" if value is None else f", T = {value:.4f}"
        return (
            f"<Head {self.name}{temperature}: nll {self.nll_before:.4f} -> {self.nll_after:.4f} "
            f"nats/token on {on['corpus']}-{on['split']}>"
        )


class HeadComparison:
    """Heads beside no head on the test split of each corpus.

    Attributes:
        record: what the run's temperature/comparison.json holds.
    """

    def __init__(self, record: HeadComparisonRecord):
        self.record = record

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "HeadComparison":
        """Returns the comparison in a document."""
        return cls(HeadComparisonRecord.parse(document, "comparison"))

    @cached_property
    def table(self) -> Table:
        """A row for each corpus and head: figures, and how far they are from those of no head.

        The difference of a figure is in FIGURE_difference, its 95 % interval over documents in
        FIGURE_lower and FIGURE_upper.
        """
        return Table.of_rows(self._rows())

    def _rows(self) -> Iterator[dict[str, Any]]:
        for corpus in self.record.corpora:
            for row in corpus.rows:
                found: dict[str, Any] = {"corpus": corpus.name, "head": row.head, **row.numbers}
                for key, away in (row.differences or {}).items():
                    found[f"{key}_difference"] = away.difference
                    found[f"{key}_lower"], found[f"{key}_upper"] = away.lower, away.upper
                yield found

    def to_arrow(self) -> "pyarrow.Table":
        """Returns `table` as Arrow."""
        return self.table.to_arrow()

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns `table` as a data frame.

        Raises:
            UserError: where pandas is not installed.
        """
        return self.table.to_pandas()

    def _shown(self) -> Table:
        """The columns that a reader wants first."""
        names = ("corpus", "head", "nll", "ece", "ece_difference", "ece_lower", "ece_upper")
        there = [name for name in names if name in self.table]
        return Table(self.table.to_arrow().select(there))

    def __repr__(self) -> str:
        return repr(self._shown()).replace("Table of", "HeadComparison of", 1)

    def _repr_html_(self) -> str:
        return self._shown()._repr_html_()
