"""Files of predictions: CSV, JSON lines or Parquet, read into one checked table.

What a file holds is told from its columns: confidences, log-probabilities of choices, or samples
of lm-evaluation-harness. A mistake is one line that names the file, the line or row, the value, and
what is allowed.
"""

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from calibtrain.data.corpora.text_files import (
    check_unchanged,
    digest_files,
    digest_set,
    file_names,
    find_files,
)
from calibtrain.data.predictions.harness_samples import Samples, is_sample, task_of
from calibtrain.data.predictions.rows import SUFFIXES, Row, Rows, open_rows
from calibtrain.data.predictions.table import Choices, Judged, PredictionTable
from calibtrain.errors import UserError, shown

CONFIDENCE, CORRECT = ("confidence",), ("correct",)
LOG_PROBABILITIES, LABEL = ("logprobs", "choices"), ("label", "target")
"""Names of columns, the first that a file has is read."""
_RIGHT = {"1": 1.0, "0": 0.0, "1.0": 1.0, "0.0": 0.0, "true": 1.0, "false": 0.0}


@dataclasses.dataclass(frozen=True)
class ColumnNames:
    """Columns that the user named; None means the usual names.

    Attributes:
        confidence: probability given to the prediction.
        correct: whether it was right.
        logprobs: list of the choices' log-probabilities.
        label: index of the right choice.
        document: what predictions that belong together have in common; default `document` where
            there is one.
        group: what results are given by; default `group` where there is one, else the file where
            there are several.
    """

    confidence: str | None = None
    correct: str | None = None
    logprobs: str | None = None
    label: str | None = None
    document: str | None = None
    group: str | None = None


def read_predictions(
    patterns: Sequence[str], columns: ColumnNames = ColumnNames()
) -> PredictionTable:
    """Returns the predictions of all files together, in their order.

    Args:
        patterns: paths of files, or globs.
        columns: names of columns.

    Raises:
        UserError: for a file that cannot be read, or does not hold what is needed.
    """
    paths = find_files(patterns, SUFFIXES)
    names, digests = file_names(paths), digest_files(paths)
    parts = [_read(path, columns) for path in paths]
    check_unchanged(paths, digests)
    for path, part in zip(paths, parts, strict=True):
        if type(part.scores) is not type(parts[0].scores):
            kinds = {Judged: "confidences", Choices: "log-probabilities of choices"}
            raise UserError(
                f"{path}: holds {kinds[type(part.scores)]}, {paths[0]} "
                f"{kinds[type(parts[0].scores)]}; measure them one by one"
            )
    return _together(parts, digest_set(names, digests))


def _read(path: Path, columns: ColumnNames) -> PredictionTable:
    """Returns the predictions of one file; its name stands for its content hash."""
    rows = open_rows(path)
    if rows.first is None:
        raise UserError(f"{path}: holds no predictions; at least one {rows.word} is needed")
    if is_sample(rows.first.values):
        return _samples(rows, columns)
    read: Callable[[Row], tuple[Any, Any]]
    by_choices = _by_choices(rows, columns)
    if by_choices:
        keys = _column(rows, columns.logprobs, LOG_PROBABILITIES, "--logprobs")
        right = _column(rows, columns.label, LABEL, "--label")
    else:
        keys = _column(rows, columns.confidence, CONFIDENCE, "--confidence")
        right = _column(rows, columns.correct, CORRECT, "--correct")
    document = _optional(rows, columns.document, "document", "--document")
    group = _optional(rows, columns.group, "group", "--group")
    found: list[tuple[Any, Any]] = []
    documents: list[str] = []
    groups: list[str] = []
    read = _choice_row(keys, right) if by_choices else _judged_row(keys, right)
    for row in rows:
        found.append(read(row))
        if document:
            documents.append(row.name(document))
        if group:
            groups.append(row.name(group))
    if by_choices:
        scores: Judged | Choices = padded(found)
    else:
        table = np.array(found)
        scores = Judged(table[:, 0].astype(rows.precision.get(keys, np.float64)), table[:, 1])
    return PredictionTable(path.name, path.name, scores, documents, groups, _unread(rows, columns))


def _samples(rows: Rows, columns: ColumnNames) -> PredictionTable:
    """Returns the predictions of a file of lm-evaluation-harness."""
    for option in ("confidence", "correct", "logprobs", "label"):
        if (name := getattr(columns, option)) is not None:
            raise UserError(
                f"--{option}: {name!r} is not used: {rows.path} holds samples of "
                "lm-evaluation-harness, whose columns are known; leave it out"
            )
    samples, found = Samples(rows.path), []
    documents: list[str] = []
    groups: list[str] = []
    for row in rows:
        if (read := samples.read(row)) is None:
            continue
        found.append(read)
        if columns.document:
            documents.append(samples.name(row, columns.document, "--document"))
        if columns.group:
            groups.append(samples.name(row, columns.group, "--group"))
    name = task_of(rows.path)
    return PredictionTable(name, name, padded(found), documents, groups, samples.notes)


def _together(parts: Sequence[PredictionTable], content_hash: str) -> PredictionTable:
    if len(parts) == 1:
        return dataclasses.replace(parts[0], content_hash=content_hash)
    names = [part.name for part in parts]
    if len(set(names)) < len(names):  # one task, evaluated twice: tell the files apart
        names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
    documents: list[str] = []
    groups: list[str] = []
    for name, part in zip(names, parts, strict=True):
        count = len(part.scores)
        own = part.documents or [str(number) for number in range(1, count + 1)]
        documents += [f"{name}:{each}" for each in own]
        groups += part.groups or [name] * count
    name = ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} others"
    notes = [note for part in parts for note in part.notes]
    scores = [part.scores for part in parts]
    if isinstance(scores[0], Judged):
        both = [np.concatenate(column) for column in zip(*(s.arrays for s in scores), strict=True)]
        joined: Judged | Choices = Judged(*both)
    else:
        logs, labels = zip(*(s.arrays for s in scores), strict=True)
        joined = padded(list(zip(_rows_of(logs), np.concatenate(labels), strict=True)))
    return PredictionTable(name, content_hash, joined, documents, groups, notes)


def _rows_of(tables: Iterable[np.ndarray]) -> list[np.ndarray]:
    return [row for table in tables for row in table]


def padded(found: Sequence[tuple[Any, Any]]) -> Choices:
    """Returns choices in one array; rows with fewer choices end in -inf."""
    most = max(len(logs) for logs, _ in found)
    table = np.full((len(found), most), -np.inf)
    for row, (logs, _) in zip(table, found, strict=True):
        row[: len(logs)] = logs
    return Choices(table, np.array([label for _, label in found], np.int64))


# --- which columns -------------------------------------------------------------------------------


def _by_choices(rows: Rows, columns: ColumnNames) -> bool:
    """Returns whether the rows are choices: as the user's names say, else as the columns do."""
    judged = [f"--{key}" for key in ("confidence", "correct") if getattr(columns, key)]
    chosen = [f"--{key}" for key in ("logprobs", "label") if getattr(columns, key)]
    if judged and chosen:
        raise UserError(
            f"{judged[0]}, {chosen[0]}: exclude each other; confidences are read with their "
            "correctness, log-probabilities with their label"
        )
    if judged or chosen:
        return bool(chosen)
    has_confidence = set(CONFIDENCE) & set(rows.names)
    return not has_confidence and bool(set(LOG_PROBABILITIES) & set(rows.names))


def _unread(rows: Rows, columns: ColumnNames) -> list[str]:
    """Returns a note on log-probabilities that stand beside the confidences that are read."""
    found = [name for name in LOG_PROBABILITIES if name in rows.names]
    if not found or columns.logprobs or columns.label or _by_choices(rows, columns):
        return []
    return [
        f"{rows.path.name}: confidences are read, {found[0]} is not; name it with --logprobs to "
        "measure the choices"
    ]


def _column(rows: Rows, named: str | None, usual: Sequence[str], option: str) -> str:
    wanted = [named] if named is not None else usual
    for name in wanted:
        if name in rows.names:
            return name
    raise _missing(rows, wanted, option)


def _optional(rows: Rows, named: str | None, usual: str, option: str) -> str | None:
    if named is not None:
        return _column(rows, named, (), option)
    return usual if usual in rows.names else None


def _missing(rows: Rows, wanted: Sequence[str], option: str) -> UserError:
    near = difflib.get_close_matches(wanted[0][:100], rows.names, n=1, cutoff=0.5)
    there = shown(", ".join(rows.names), 200)[1:-1] or "none"
    hint = f"; did you mean {option} {near[0]}?" if near else f"; name yours with {option} COLUMN"
    named = " or ".join(map(repr, wanted))
    return UserError(f"{rows.path}: has no column {named}; columns there: {there}{hint}")


# --- values --------------------------------------------------------------------------------------


def _judged_row(confidence: str, correct: str) -> Callable[[Row], tuple[float, float]]:
    def read(row: Row) -> tuple[float, float]:
        value, right = row.number(confidence, "a number in [0, 1]"), row.value(correct)
        if not 0 <= value <= 1:
            raise row.wrong(confidence, "a number in [0, 1]")
        found = _RIGHT.get(str(right).strip().lower()) if isinstance(right, (bool, str)) else None
        if found is None and not isinstance(right, str) and right in (0, 1):
            found = float(right)
        if found is None:
            raise row.wrong(correct, "0, 1, true or false")
        return value, found

    return read


def _choice_row(logprobs: str, label: str) -> Callable[[Row], tuple[list[float], int]]:
    def read(row: Row) -> tuple[list[float], int]:
        logs = row.numbers(logprobs)
        right = row.number(label, f"a whole number in 0..{len(logs) - 1}")
        return checked_choice(row, logs, right, label)

    return read


def checked_choice(
    row: Row, logs: list[float], right: float, label: str
) -> tuple[list[float], int]:
    """Returns the log-probabilities and the index of the right choice of a row, checked.

    Raises:
        UserError: for an index out of range, or a right choice of probability 0.
    """
    if not (right == math.floor(right) and 0 <= right < len(logs)):
        raise row.wrong(label, f"a whole number in 0..{len(logs) - 1}, the index of a choice")
    if logs[int(right)] == -math.inf:
        raise row.wrong(label, "a choice whose probability is above 0: its nll would be infinite")
    return logs, int(right)
