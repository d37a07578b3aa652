"""Compares signatures, which say how each figure was computed, and notes where a table mixes them.

A signature is `event:token|conf:max|bins:15|...`; every figure of an evaluation has one.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from calibtrain.figures.display import plural
from calibtrain.metrics.quantities import quantity_name
from calibtrain.runs.evaluation_records import EvaluationRecord

_NAMES = {
    "event": ("event", "events"),
    "conf": ("kind of confidence", "kinds of confidence"),
    "bins": ("number of bins", "numbers of bins"),
    "scheme": ("binning scheme", "binning schemes"),
    "edges": ("rule for edges", "rules for edges"),
    "T": ("temperature", "temperatures"),
    "corpus": ("text", "texts"),
    "tok": ("tokenizer", "tokenizers"),
    "v": ("version of calibtrain", "versions of calibtrain"),
}
_HASHES = ("corpus", "tok")
MOST_NAMED = 4
"""Most values that a note lists; for more values, and for hashes, it gives their number."""

Column = Sequence[str | None]
"""Signatures of the figures in one column; None for a figure without one."""


def parse(signature: str) -> dict[str, str]:
    """Returns the keys of a signature and their values, including unknown keys."""
    parts = [part.partition(":") for part in signature.split("|")]
    return {key: value for key, _, value in parts}


def differing(column: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Returns the keys in which signatures differ, each with its distinct values."""
    found = [parse(signature) for signature in dict.fromkeys(column)]
    keys = dict.fromkeys(key for one in found for key in one)
    values = {key: tuple(dict.fromkeys(one.get(key, "missing") for one in found)) for key in keys}
    return {key: _in_order(distinct) for key, distinct in values.items() if len(distinct) > 1}


def _in_order(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(values, key=int)) if all(v.isdecimal() for v in values) else values


def mixed(columns: Mapping[str, Column], expected: Collection[str] = ()) -> str:
    """Returns a note on a table whose columns, or a plot whose axes, mix different signatures.

    Args:
        columns: by result key, the signatures of the figures in one column.
        expected: keys of signatures that need no note.

    Returns:
        A line, or "" where every column has one signature.
    """
    each = {
        key: {
            name: values
            for name, values in differing(s for s in column if s).items()
            if name not in expected
        }
        for key, column in columns.items()
    }
    parts = [found for found in each.values() if found]
    lines = []
    if parts:
        common = {k: v for k, v in parts[0].items() if all(other.get(k) == v for other in parts)}
        said = [_in_words(key, values) for key, values in common.items()]
        for key, found in each.items():
            rest = [_in_words(k, values) for k, values in found.items() if k not in common]
            if rest:
                said.append(f"in {quantity_name(key)} also {', '.join(rest)}")
        lines.append(f"Figures that stand together have different signatures: {'; '.join(said)}.")
        lines.append(_advice(columns, parts))
    without = max((sum(s is None for s in column) for column in columns.values()), default=0)
    total = max((len(column) for column in columns.values()), default=0)
    if without and total > 1:
        whose = "None of them has" if without == total else f"{without} of {total} do not have"
        lines.append(f"{whose} a signature: whether they may be compared cannot be told.")
    return " ".join(filter(None, lines))


def _in_words(key: str, values: Sequence[str]) -> str:
    one, many = _NAMES.get(key, (key, key))
    named = "" if key in _HASHES or len(values) > MOST_NAMED else f": {', '.join(values)}"
    return f"{key} ({plural(len(values), one, many)}{named})"


def _advice(columns: Mapping[str, Column], parts: Sequence[Mapping[str, Sequence[str]]]) -> str:
    keys = {key for found in parts for key in found}
    events = {parse(s).get("event") for column in columns.values() for s in column if s}
    lines = []
    if "tok" in keys and "token" in events:
        lines.append(
            "Token-level figures of different vocabularies are different events: compare bits per "
            "byte or byte events."
        )
    elif "tok" in keys:
        lines.append("The event does not depend on the tokenizer, so that these compare.")
    if keys & {"corpus", "v", "T", "event"}:
        lines.append("A difference may come from these, not from the models.")
    return " ".join(lines)


def mixed_in(
    evaluations: Iterable[EvaluationRecord | None],
    keys: Iterable[str],
    expected: Collection[str] = (),
) -> str:
    """Returns the note of `mixed` for a table or plot of the evaluations' figures.

    Args:
        evaluations: the evaluations; None for a row whose file was not found.
        keys: keys of the columns; those that no evaluation has are left out.
        expected: keys of signatures that need no note.
    """
    found = list(evaluations)
    columns = {
        key: [
            None if e is None else e.signature(key) for e in found if e is None or key in e.numbers
        ]
        for key in keys
        if any(e is not None and key in e.numbers for e in found)
    }
    return mixed(columns, expected)
