"""The table of an evaluation's documents, and the Parquet file beside its JSON that holds it.

A row per document that was scored: `document` (its id), `index` (its place in the split), `bytes`
of its text that were scored, `tokens` (events), and sums over these events: `nll` and `entropy` in
nats, `confidence`, `correct`, `multiclass_brier`. Columns that a kind of events lacks are left out.

`BIN_COLUMNS` are lists of equal length, one number per equal-width bin of confidence: bin k of n
holds confidences in (k/n, (k+1)/n], the first one 0 too. They are absent from files of an earlier
version, and where documents times bins exceed `MOST_CELLS`.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibtrain.errors import UserError
from calibtrain.storage.disk import write_whole

if TYPE_CHECKING:
    import pyarrow

BIN_COLUMNS = ("bin_events", "bin_confidence", "bin_correct")
"""Events of a document in each bin, and the sums of their confidence and correctness."""
MOST_CELLS = 2_000_000
"""Documents times bins that are kept at most: 48 MB of sums."""


def document_table(columns: Mapping[str, Any]) -> "pyarrow.Table":
    """Returns columns as Arrow: of an array [rows, size], each row becomes a list of fixed size.

    Example:
        >>> import numpy as np
        >>> table = document_table({"tokens": np.ones(2), "bin_events": np.eye(2)})
        >>> print(table.schema.field("bin_events").type)
        fixed_size_list<item: double>[2]
    """
    import pyarrow as pa

    return pa.table(
        {
            name: pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), column.shape[1])
            if getattr(column, "ndim", 1) == 2
            else column
            for name, column in columns.items()
        }
    )


def write_documents(path: Path, columns: Mapping[str, Any]) -> None:
    """Writes the Parquet file whole, with checksums of its pages."""
    from pyarrow import parquet

    buffer = io.BytesIO()
    parquet.write_table(document_table(columns), buffer, write_page_checksum=True)
    write_whole(path, buffer.getvalue())


def read_documents(path: Path, columns: Sequence[str] | None = None) -> "pyarrow.Table":
    """Returns the table, or some columns of it.

    Raises:
        UserError: where the file is missing or damaged, or lacks one of the columns.
    """
    from pyarrow import ArrowException, parquet

    try:
        with path.open("rb") as file:
            table = parquet.read_table(
                file,
                columns=None if columns is None else list(columns),
                page_checksum_verification=True,
            )
    except (OSError, ValueError, ArrowException) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise _unreadable(path, reason) from None
    if missing := _missing(table, columns or ("document", "tokens")):
        raise _unreadable(path, f"it lacks the column {missing}")
    return table


def _missing(table: "pyarrow.Table", columns: Iterable[str]) -> str | None:
    return next((name for name in columns if name not in table.column_names), None)


def _unreadable(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: cannot be read ({reason}); evaluate again")
