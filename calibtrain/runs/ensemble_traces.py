"""How a text of an ensemble came about: one row per step and member. It needs no JAX.

It stands beside the trace of one model (`traces`), whose rows are tokens of one vocabulary. Here
`byte_offset` is what members have in common.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from calibtrain.runs.traces import FORMAT, read_rows, write_rows

SCHEMA = pa.schema(
    [
        ("text", pa.int32()),
        ("step", pa.int32()),
        ("byte_offset", pa.int64()),
        ("chosen", pa.binary()),
        ("ended", pa.bool_()),
        ("member", pa.string()),
        ("piece", pa.binary()),
        ("probability", pa.float64()),
        ("weight", pa.float64()),
        ("stalled", pa.bool_()),
    ]
)
"""Columns of the table (docs/ensembles.md says what each means)."""


@dataclasses.dataclass(frozen=True)
class EnsembleTrace:
    """The steps of the texts of a request, and what is said of the whole.

    Attributes:
        table: rows of `SCHEMA`, in the order of the texts.
        about: method, settings, members' runs, seed, prompt, and of each text what `--json` says.
    """

    table: pa.Table
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Writes a Parquet file.

        Raises:
            UserError: where the disk is full or may not be written.
        """
        write_rows(self.table, {"format": FORMAT, **self.about}, path)

    @classmethod
    def read(cls, path: Path) -> "EnsembleTrace":
        """Reads a file that `write` wrote.

        Raises:
            UserError: for a file that is missing, damaged, or of another kind or format.
        """
        return cls(*read_rows(path, "calibtrain ensemble RUN RUN --save NAME", SCHEMA))


def steps_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Returns rows as a table with the columns of `SCHEMA`; a probability of NaN is missing.

    Example:
        >>> steps_table([]).num_rows
        0
    """
    own = list(rows)
    columns = [
        pa.array([row[field.name] for row in own], field.type, from_pandas=True) for field in SCHEMA
    ]
    return pa.table(columns, schema=SCHEMA)
