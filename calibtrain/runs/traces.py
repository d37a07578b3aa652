"""Traces: one row per token of generated or given text, as Parquet or JSON lines.

This is the one schema that everything reads that looks at entropy along a text. It needs no JAX.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int

from calibtrain.errors import UserError
from calibtrain.storage.byte_pieces import spelled_bytes
from calibtrain.storage.disk import disk_errors, make_folder, write_whole

FORMAT = 1
SOURCES = ("prompt", "generated", "given")
ALTERNATIVES = 5
"""The most probable entries that a row names."""
WINDOW = 64
"""Bytes that the windowed entropy rate looks back on, at least, where a text has them."""
_METADATA = b"calibtrain"

SCHEMA = pa.schema(
    [
        ("text", pa.int32()),
        ("position", pa.int32()),
        ("token", pa.int32()),
        ("piece", pa.binary()),
        ("byte_offset", pa.int64()),
        ("bytes", pa.int32()),
        ("source", pa.string()),
        ("log_probability", pa.float32()),
        ("sampling_log_probability", pa.float32()),
        ("entropy", pa.float32()),
        ("confidence", pa.float32()),
        ("rank", pa.int32()),
        (
            "alternatives",
            pa.list_(pa.struct([("token", pa.int32()), ("log_probability", pa.float32())])),
        ),
        ("surprise_excess", pa.float32()),
        ("information_bits", pa.float64()),
        ("entropy_bits", pa.float64()),
        ("entropy_rate", pa.float64()),
        ("entropy_rate_windowed", pa.float64()),
        ("temperature", pa.float32()),
        ("repeats", pa.int32()),
    ]
)
"""Columns of a trace (docs/generation.md says what each means)."""


@dataclasses.dataclass(frozen=True)
class TokenTrace:
    """The tokens of one text in their order, with what the model said of each beforehand.

    Log-probabilities and entropies are in nats, and of the whole vocabulary.

    Attributes:
        text: number of the text among those of its request.
        tokens: ids; the document start, which comes before the first, is not among them.
        pieces: the exact bytes of each.
        source: index into `SOURCES`.
        log_probability: of the token, under the model with its head, before samplers.
        sampling_log_probability: under what it was drawn from; NaN where it was not drawn.
        entropy: of the next-token distribution, before samplers.
        confidence: the largest probability, before samplers.
        rank: 1 for the most probable token; 1 + the number of entries that are more probable.
        alternatives: ids of the most probable entries, the best first.
        alternative_log_probability: of each of them.
        temperature: that the head divided the logits by; 1 without one.
        repeats: period of the exact repetition that ends with the token; 0 without one.
    """

    text: int
    tokens: Int[np.ndarray, " tokens"]
    pieces: Sequence[bytes]
    source: Int[np.ndarray, " tokens"]
    log_probability: Float[np.ndarray, " tokens"]
    sampling_log_probability: Float[np.ndarray, " tokens"]
    entropy: Float[np.ndarray, " tokens"]
    confidence: Float[np.ndarray, " tokens"]
    rank: Int[np.ndarray, " tokens"]
    alternatives: Int[np.ndarray, "tokens few"]
    alternative_log_probability: Float[np.ndarray, "tokens few"]
    temperature: Float[np.ndarray, " tokens"]
    repeats: Int[np.ndarray, " tokens"]

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def byte_lengths(self) -> Int[np.ndarray, " tokens"]:
        """How many bytes each token stands for."""
        return np.array([len(piece) for piece in self.pieces], np.int32)

    @property
    def entropy_rate_windowed(self) -> Float[np.ndarray, " tokens"]:
        """Entropy in bits a byte of the latest `WINDOW` bytes; NaN where there are no bytes."""
        entropy, size = _running(self.entropy / math.log(2)), _running(self.byte_lengths)
        # the latest token from which on the window is full, or the first of all
        back = np.maximum(np.searchsorted(size, size[1:] - WINDOW, side="right") - 1, 0)
        return _rate(entropy[1:] - entropy[back], size[1:] - size[back])

    def table(self, first: int = 0) -> pa.Table:
        """Returns the rows from token `first` on, with the columns of `SCHEMA`.

        The cumulative columns begin anew where the source changes: those of generated tokens do not
        count the prompt's. A rate is missing until there are bytes.
        """
        lengths = self.byte_lengths
        part = np.zeros(len(self), np.int64)  # the first token of each token's part
        if len(self):
            starts = np.flatnonzero(np.diff(self.source, prepend=-1))
            part = np.repeat(starts, np.diff(np.append(starts, len(self))))
        information = _running(-self.log_probability / math.log(2))
        entropy = _running(self.entropy / math.log(2))
        size = _running(lengths)
        end = np.arange(1, len(self) + 1)

        def since(running: Any, start: Any) -> Any:
            return running[end] - running[start]

        columns: dict[str, Any] = {
            "text": np.full(len(self), self.text, np.int32),
            "position": np.arange(len(self), dtype=np.int32),
            "token": np.asarray(self.tokens, np.int32),
            "piece": pa.array(list(self.pieces), pa.binary()),
            "byte_offset": size[:-1].astype(np.int64),
            "bytes": lengths,
            "source": pa.array([SOURCES[index] for index in self.source], pa.string()),
            "log_probability": self.log_probability,
            "sampling_log_probability": _numbers(self.sampling_log_probability),
            "entropy": self.entropy,
            "confidence": self.confidence,
            "rank": np.asarray(self.rank, np.int32),
            "alternatives": self._alternatives(),
            "surprise_excess": -self.log_probability - self.entropy,
            "information_bits": since(information, part),
            "entropy_bits": since(entropy, part),
            "entropy_rate": _optional(_rate(since(entropy, part), since(size, part))),
            "entropy_rate_windowed": _optional(self.entropy_rate_windowed),
            "temperature": self.temperature,
            "repeats": np.asarray(self.repeats, np.int32),
        }
        arrays = [pa.array(columns[field.name], field.type) for field in SCHEMA]
        return pa.table(arrays, schema=SCHEMA).slice(first)

    def _alternatives(self) -> pa.Array:
        count, few = self.alternatives.shape
        pairs = pa.StructArray.from_arrays(
            [
                pa.array(self.alternatives.reshape(-1), pa.int32()),
                pa.array(self.alternative_log_probability.reshape(-1), pa.float32()),
            ],
            fields=list(SCHEMA.field("alternatives").type.value_type),
        )
        offsets = pa.array(np.arange(count + 1) * few, pa.int32())
        return pa.ListArray.from_arrays(offsets, pairs)


@dataclasses.dataclass(frozen=True)
class TraceRecord:
    """Traces of the texts of a request, and what is said of the whole.

    Attributes:
        table: rows of `SCHEMA`, in the order of the texts.
        about: run, step, tokenizer hash, sampling, seed, and more.
    """

    table: pa.Table
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, traces: Sequence[TokenTrace], about: Mapping[str, Any] | None = None
    ) -> "TraceRecord":
        """Returns the record of some texts."""
        tables = [trace.table() for trace in traces] or [SCHEMA.empty_table()]
        return cls(pa.concat_tables(tables), {"format": FORMAT, **(about or {})})

    def write(self, path: Path) -> None:
        """Writes a Parquet file, or JSON lines where the path ends in .jsonl.

        Raises:
            UserError: where the disk is full or may not be written.
        """
        if path.suffix == ".jsonl":
            make_folder(path.parent)
            with disk_errors(path):
                write_whole(path, "".join(line + "\n" for line in self.lines()))
            return
        write_rows(self.table, self.about, path)

    @classmethod
    def read(cls, path: Path) -> "TraceRecord":
        """Reads a Parquet file that `write` wrote.

        Raises:
            UserError: for a file that is missing, damaged or of another format.
        """
        return cls(*read_rows(path, "calibtrain generate RUN --save", SCHEMA))

    def lines(self) -> Iterator[str]:
        """Yields one JSON object per token, as `row_line` writes it."""
        for row in self.table.to_pylist():
            yield row_line(row)


def write_rows(table: pa.Table, about: Mapping[str, Any], path: Path) -> None:
    """Writes the rows of a trace, and what is said of the whole, as a Parquet file.

    Raises:
        UserError: where the disk is full or may not be written.
    """
    import pyarrow.parquet as pq

    make_folder(path.parent)
    with disk_errors(path):
        buffer = pa.BufferOutputStream()
        said = {_METADATA: json.dumps(dict(about)).encode()}
        pq.write_table(table.replace_schema_metadata(said), buffer)
        write_whole(path, buffer.getvalue().to_pybytes())


def read_rows(path: Path, made_by: str, schema: pa.Schema) -> tuple[pa.Table, Mapping[str, Any]]:
    """Returns the rows of a Parquet file that `write_rows` wrote, and what is said of the whole.

    Args:
        path: of the file.
        made_by: the command that makes such a file.
        schema: columns that the file has at least.

    Raises:
        UserError: for a file that is missing, damaged, or of another kind or format.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(path.read_bytes()))
        about = json.loads((table.schema.metadata or {})[_METADATA])
        form = about["format"]
        table.select(schema.names)
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; make it with: {made_by}") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path}: is not a trace, or is damaged ({reason})") from None
    if form != FORMAT:
        raise UserError(
            f"{path}: has format {str(form)[:40]}; this version reads format {FORMAT}: use the "
            "version of calibtrain that wrote it"
        )
    return table.replace_schema_metadata(None), about


def row_line(row: Mapping[str, Any]) -> str:
    """Returns a row of a trace as one line of JSON, in ASCII; `spelled_bytes` says its piece."""
    return json.dumps({**row, **spelled_bytes("piece", row["piece"])})


def _running(values: Any) -> Float[np.ndarray, " values+1"]:
    """Returns 0 and the running sums, in float64."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _numbers(values: Float[np.ndarray, " values"]) -> pa.Array:
    """Returns an Arrow column in which NaN is missing."""
    return pa.array(values, pa.float32(), from_pandas=True)


def _rate(bits: Any, size: Any) -> Float[np.ndarray, " values"]:
    """Returns bits a byte; NaN where there are no bytes."""
    return np.divide(bits, size, out=np.full(len(bits), np.nan), where=size > 0)


def _optional(values: Float[np.ndarray, " values"]) -> pa.Array:
    """Returns an Arrow column of 64-bit numbers in which NaN is missing."""
    return pa.array(values, pa.float64(), from_pandas=True)
