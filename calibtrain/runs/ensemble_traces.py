"""How a text of an ensemble came about: one row per step and member. It needs no JAX.

It stands beside the trace of one model (`traces`), whose rows are tokens of one vocabulary. Here
`byte_offset` is what members have in common.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

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
