"""Samples of lm-evaluation-harness (`--log_samples`): multiple choice, as log-likelihoods.

A line of samples_TASK_TIME.jsonl is a question. `filtered_resps` holds, for each choice, its
log-likelihood and whether it is the greedy continuation, both as texts; `arguments` the context and
the continuation that were scored; `target` the index of the right choice or its text, as a text.
Confidences are the softmax of the log-likelihoods, as in the harness's own Brier score.
"""

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.data.predictions.rows import FEWEST_CHOICES, Row
from calibtrain.errors import UserError, quoted, shown

_KEYS = {"doc_id", "target", "arguments", "resps", "filtered_resps"}
_NAME = re.compile(r"samples_(?P<task>.+?)_\d{4}-\d\d-\d\dT[\d\-.:]+\.jsonl(\.gz)?")


def is_sample(record: Mapping[str, Any]) -> bool:
    """Returns whether a row is a sample as the harness logs it."""
    return record.keys() >= _KEYS


def task_of(path: Path) -> str:
    """Returns the task that a file of samples is named for, or else its own name.

    Example:
        >>> task_of(Path("samples_arc_easy_2025-01-31T10-11-12.123456.jsonl"))
        'arc_easy'
    """
    found = _NAME.fullmatch(path.name)
    return found["task"] if found else path.name


class Samples:
    """Reads the samples of one file.

    Attributes:
        notes: what a reader of the results must know.
    """

    def __init__(self, path: Path):
        self._path = path
        self._filter: Any = None
        self.notes: list[str] = []

    def read(self, row: Row) -> tuple[list[float], int] | None:
        """Returns the log-likelihoods of the choices and the index of the right one.

        A task with several filters logs each question once per filter: those of the first filter
        are read, and for others None is returned.

        Raises:
            UserError: for what is not multiple choice, or scored in another way.
        """
        record = row.values
        name = record.get("filter", "none")
        if self._filter is None:
            self._filter = name
        elif name != self._filter:
            note = (
                f"{self._path.name}: samples of the filter {self._filter} are read, others are not"
            )
            self.notes = [note]
            return None
        logs = self._log_likelihoods(row)
        pairs = _arguments(record["arguments"])
        if _is_mutual_information(pairs, len(logs)):
            logs, pairs = logs[: len(logs) // 2], pairs[: len(logs) // 2]
        return logs, self._label(row, logs, pairs)

    def name(self, row: Row, column: str, option: str) -> str:
        """Returns the value of a field of a sample, or of the question (`doc`) in it, as a name.

        Raises:
            UserError: where neither has it.
        """
        doc = row.values.get("doc")
        fields = dict(doc) if isinstance(doc, Mapping) else {}
        for values in (row.values, fields):
            if column in values:
                return Row(row.place, values).name(column)
        names = [*row.values, *fields]
        near = difflib.get_close_matches(column[:100], names, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        there = shown(", ".join(names), 300)[1:-1]
        raise UserError(f"{row.place}: {option}: has no {column!r}; fields there: {there}{hint}")

    def _log_likelihoods(self, row: Row) -> list[float]:
        answers = row.values["filtered_resps"]
        scored = isinstance(answers, Sequence) and not isinstance(answers, str) and len(answers) > 0
        pairs = [each for each in answers if _is_scored(each)] if scored else []
        if not scored or len(pairs) < len(answers):
            raise UserError(
                f"{row.place}: task {quoted(task_of(self._path))} is not multiple choice: it logs "
                f"{shown(answers, 40)}, which has no confidence; tasks of "
                "output_type multiple_choice log a log-likelihood for each choice"
            )
        if len(pairs) < FEWEST_CHOICES:
            raise UserError(
                f"{row.place}: task {quoted(task_of(self._path))} scores a single continuation, "
                "whose probability is not a confidence among choices; tasks of output_type "
                "multiple_choice log two or more"
            )
        return Row(row.place, {"filtered_resps": [pair[0] for pair in pairs]}).numbers(
            "filtered_resps"
        )

    def _label(self, row: Row, logs: list[float], pairs: Sequence[tuple[str, str]]) -> int:
        """Returns the index of the right choice; the logged accuracy decides between readings."""
        accuracy, target = row.values.get("acc"), row.values["target"]
        if accuracy is not None and accuracy not in (0, 1):
            raise UserError(
                f"{row.place}: acc is {shown(accuracy, 40)}, neither 0 nor 1: the task does not "
                "score one right choice, so that confidence and correctness cannot be read from it"
            )
        best = max(range(len(logs)), key=logs.__getitem__)
        readings = _readings(str(target), len(logs), [text for _, text in pairs])
        fitting = [each for each in readings if accuracy is None or (each == best) == accuracy]
        if not readings and accuracy is not None and len(logs) == FEWEST_CHOICES:
            fitting = [best if accuracy else 1 - best]  # contexts are compared, not continuations
        if not fitting:
            why = "does not agree with" if readings else "names no choice; logged is"
            raise UserError(
                f"{row.place}: target {shown(target, 60)} {why} acc {accuracy}; the index of one "
                f"right choice in 0..{len(logs) - 1} is needed, or its text"
            )
        if logs[fitting[0]] == -math.inf:
            raise UserError(
                f"{row.place}: the right choice has log-likelihood -inf: its nll would be infinite"
            )
        return fitting[0]


def _is_scored(answer: Any) -> bool:
    """Returns whether an answer is a log-likelihood and whether it is greedy."""
    if not isinstance(answer, Sequence) or isinstance(answer, str) or len(answer) != 2:
        return False
    try:
        float(answer[0])
    except (TypeError, ValueError):
        return False
    return str(answer[1]) in ("True", "False")


def _arguments(logged: Any) -> list[tuple[str, str]]:
    """Returns the context and continuation of each request; lists are of earlier versions."""
    requests = list(logged.values()) if isinstance(logged, Mapping) else logged
    found = []
    for request in requests if isinstance(requests, Sequence) else ():
        parts = list(request.values()) if isinstance(request, Mapping) else list(request)
        if len(parts) >= 2:
            found.append((str(parts[0]), str(parts[1])))
    return found


def _is_mutual_information(pairs: Sequence[tuple[str, str]], count: int) -> bool:
    """Returns whether the second half scores the same choices without a context."""
    half = count // 2
    first, second = pairs[:half], pairs[half:]
    return (
        count == 2 * half == len(pairs)
        and half >= FEWEST_CHOICES
        and all(context == "" for context, _ in second)
        and any(context for context, _ in first)
        and [text for _, text in first] == [text for _, text in second]
    )


def _readings(target: str, count: int, texts: Sequence[str]) -> list[int]:
    """Returns the choices that a target may mean: by its index, then by its text."""
    found = []
    if re.fullmatch(r"\d{1,9}", target) and int(target) < count:
        found.append(int(target))
    with_text = [index for index, text in enumerate(texts) if text.strip() == target.strip()]
    if len(with_text) == 1 and with_text[0] not in found:
        found.append(with_text[0])
    return found
