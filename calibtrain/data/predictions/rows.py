"""Rows of a CSV, JSON-lines or Parquet file, one by one, with the place of each in words."""

import csv
import dataclasses
import gzip
import io
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.data.corpora.text_files import json_lines, readable
from calibtrain.errors import UserError, shown

SUFFIXES = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".parquet")
FEWEST_CHOICES = 2


@dataclasses.dataclass(frozen=True)
class Row:
    """One row: its place in words, and its values by column."""

    place: str
    values: Mapping[str, Any]

    def value(self, column: str) -> Any:
        """The value of a column.

        Raises:
            UserError: where the row lacks it.
        """
        if column not in self.values:
            there = shown(", ".join(self.values), 200)[1:-1] or "none"
            raise UserError(f"{self.place}: has no {column!r}; it has {there}")
        return self.values[column]

    def wrong(self, column: str, allowed: str) -> UserError:
        """The error for the value of a column."""
        value = self.values[column]
        text = "nothing" if value is None or value == "" else shown(value)
        return UserError(f"{self.place}: {column}: {text} is not allowed; {allowed}")

    def number(self, column: str, allowed: str) -> float:
        """The value of a column as a number that is not NaN.

        Raises:
            UserError: for anything else.
        """
        found = _number(self.value(column))
        if math.isnan(found):
            raise self.wrong(column, allowed)
        return found

    def numbers(self, column: str) -> list[float]:
        """The value of a column as a list of log-probabilities; in a CSV file it is JSON.

        Raises:
            UserError: for anything else, fewer than two, or none above -inf.
        """
        allowed = "a list of two or more log-probabilities, such as [-0.1, -2.5]"
        value = self.value(column)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise self.wrong(column, allowed) from None
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise self.wrong(column, allowed)
        plain = all(type(each) is float for each in value)
        found = list(value) if plain else [_number(each) for each in value]
        if len(found) < FEWEST_CHOICES:
            raise self.wrong(column, allowed)
        for each, number in zip(value, found, strict=True):
            if not number < math.inf:  # NaN too
                text = f"{self.place}: {column}: {shown(each)} is not allowed"
                raise UserError(f"{text}; a log-probability is a number, or -inf")
        if max(found) == -math.inf:
            raise self.wrong(column, "at least one choice must have a probability above 0")
        return found

    def name(self, column: str) -> str:
        """The value of a column as a name.

        Raises:
            UserError: for what is not a text, a number or a boolean, or is missing.
        """
        value = self.value(column)
        if value is None or value == "" or not isinstance(value, (str, int, float)):
            raise self.wrong(column, "a text or a number")
        return str(value)


@dataclasses.dataclass
class Rows:
    """The rows of a file.

    Attributes:
        path: of the file.
        names: its columns; of JSON lines, those of the first line.
        word: what a row is called: line or row.
        first: its first row; None where there is none.
        precision: floating-point type of columns that say theirs.
    """

    path: Path
    names: Sequence[str]
    word: str
    first: Row | None
    rest: Iterator[Row]
    precision: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __iter__(self) -> Iterator[Row]:
        with readable(self.path):
            if self.first is not None:
                yield self.first
            yield from self.rest


def open_rows(path: Path) -> Rows:
    """Returns the rows of a file, whose kind is told from its suffix.

    Raises:
        UserError: for a file that cannot be read; later, when its rows are read, for a row that
            cannot.
    """
    name = path.name.lower().removesuffix(".gz")
    with readable(path):
        if name.endswith(".csv"):
            return _csv_rows(path)
        if name.endswith(".jsonl"):
            lines = (Row(place, record) for _, place, record in json_lines(path))
            first = next(lines, None)
            return Rows(path, list(first.values) if first else [], "line", first, lines)
        return _parquet_rows(path)


def _csv_rows(path: Path) -> Rows:
    opener = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as handle:
        data = handle.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: not valid UTF-8 at byte {error.start} "
            f"(0x{data[error.start]:02x}); convert it to UTF-8 first"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise UserError(f"{path}, line 1: is not CSV: {error}") from None
    if not names:
        raise UserError(f"{path}: is empty; its first line must name the columns")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{path}: has {names.count(name)} columns called {name!r}; rename one")

    def rows() -> Iterator[Row]:
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise UserError(f"{path}, line {reader.line_num}: is not CSV: {error}") from None
            if fields is None:
                return
            if not fields:  # an empty line
                continue
            place = f"{path}, line {reader.line_num}"
            if len(fields) != len(names):
                raise UserError(
                    f"{place}: has {len(fields)} of {len(names)} fields that the first line names; "
                    "give each line as many (a text with commas needs quotes)"
                )
            yield Row(place, dict(zip(names, fields, strict=True)))

    lines = rows()
    return Rows(path, names, "line", next(lines, None), lines)


def _parquet_rows(path: Path) -> Rows:
    import pyarrow
    from pyarrow import parquet, types

    def not_readable(error: Exception) -> UserError:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        return UserError(f"{path}: is not a readable parquet file: {first}")

    try:
        file = parquet.ParquetFile(path, page_checksum_verification=True)
    except pyarrow.ArrowException as error:
        raise not_readable(error) from None
    names = file.schema_arrow.names
    precision = {
        column.name: column.type.to_pandas_dtype()
        for column in file.schema_arrow
        if types.is_floating(column.type)
    }

    def rows() -> Iterator[Row]:
        number = itertools.count(1)
        try:
            with file:
                for batch in file.iter_batches(batch_size=8192):
                    for record in batch.to_pylist():
                        yield Row(f"{path}, row {next(number)}", record)
        except UnicodeDecodeError as error:
            place = f"{path}, row {next(number)} or later"
            raise UserError(f"{place}: not valid UTF-8 at byte {error.start}") from None
        except (pyarrow.ArrowException, OverflowError, ValueError) as error:
            raise not_readable(error) from None

    records = rows()
    return Rows(path, names, "row", next(records, None), records, precision)


def _number(value: Any) -> float:
    """Returns a number, or what a text says as one; NaN for anything else."""
    if isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
