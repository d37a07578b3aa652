"""`Table`: columns of equal length, as NumPy arrays, Arrow, pandas or whatever reads Arrow."""

import html
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from calibtrain.errors import UserError, cut
from calibtrain.metrics.quantities import NOTHING

if TYPE_CHECKING:
    import pandas
    import pyarrow

SHOWN = 6
"""Rows of a long table that its repr shows at each end."""
WIDEST = 100
"""Characters of a line that its repr shows; columns that do not fit are counted."""


class Table:
    """Columns by name. A library that reads Arrow takes it as it is: `polars.DataFrame(table)`.

    Example:
        >>> table = Table({"word": ["in", "the"], "nll": [2.5, None]})
        >>> table["nll"]
        array([2.5, nan])
        >>> table
        Table of 2 rows
        word     nll
        in    2.5000
        the        –
    """

    def __init__(self, columns: Any):
        """Args:
        columns: an Arrow table, or a mapping from names to sequences of equal length.
        """
        import pyarrow as pa

        self._arrow = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))

    @classmethod
    def of_rows(cls, rows: Iterable[Mapping[str, Any]]) -> "Table":
        """Returns a table with a column for each key; a key that a row lacks is null there."""
        rows = list(rows)
        names = dict.fromkeys(name for row in rows for name in row)
        return cls({name: [row.get(name) for row in rows] for name in names})

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(self._arrow.column_names)

    def __len__(self) -> int:
        return self._arrow.num_rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields the rows, by the names of their columns."""
        yield from self._arrow.to_pylist()

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> Shaped[np.ndarray, " *shape"]:
        """Returns a column, [rows], or [rows, size] of lists of one size; NaN is what is missing.

        Raises:
            KeyError: for a name that no column has.
        """
        if name not in self.columns:
            raise KeyError(f"{name!r}: is no column; there are {', '.join(self.columns)}")
        import pyarrow as pa

        column = self._arrow.column(name)
        if not pa.types.is_fixed_size_list(column.type):
            return column.to_numpy()
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(column), column.type.list_size)

    def to_arrow(self) -> "pyarrow.Table":
        """Returns the table as Arrow has it."""
        return self._arrow

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns a data frame.

        Raises:
            UserError: where pandas is not installed.
        """
        try:
            import pandas  # noqa: F401
        except ImportError:
            raise UserError(
                "to_pandas: pandas is not installed; pip install pandas, or take to_arrow()"
            ) from None
        return self._arrow.to_pandas()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """The table as a stream, by Arrow's PyCapsule interface."""
        return self._arrow.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        room, fitting = WIDEST, list[list[str]]()
        for name in self.columns:
            cells = self._cells(name)
            room -= len(cells[0]) + 2
            if fitting and room < 0:
                break
            fitting.append(cells)
        lines = ["  ".join(row).rstrip() for row in zip(*fitting, strict=True)]
        left_out = len(self.columns) - len(fitting)
        more = f"; {left_out} more columns are in .columns" if left_out else ""
        return "\n".join([f"{self._size()}{more}", *lines])

    def _repr_html_(self) -> str:
        rows = zip(*map(self._cells, self.columns), strict=True)
        text = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell.strip())}</td>" for cell in row) + "</tr>"
            for row in rows
        )
        return f"{self._size()}<table>{text}</table>"

    def _size(self) -> str:
        return f"Table of {len(self):,} row{'' if len(self) == 1 else 's'}"

    def _cells(self, name: str) -> list[str]:
        """Returns a column as text of equal width: its name, and the values that are shown."""
        column = self._arrow.column(name)
        long = len(column) > 2 * SHOWN + 1
        ends = (column[:SHOWN], column[-SHOWN:]) if long else (column,)
        values = [end.to_pylist() for end in ends]
        given = [value for end in values for value in end if value is not None]
        numeric = all(isinstance(value, (int, float)) for value in given)
        whole = numeric and all(float(value).is_integer() for value in given)
        texts = [[_cell(value, numeric, 0 if whole else 4) for value in end] for end in values]
        cells = [name, *texts[0], *(["...", *texts[1]] if long else ())]
        width = max(map(len, cells))
        return [cell.rjust(width) if numeric else cell.ljust(width) for cell in cells]


def _cell(value: Any, numeric: bool, decimals: int) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.{decimals}f}" if numeric else cut(str(value), 40)
