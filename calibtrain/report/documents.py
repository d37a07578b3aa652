"""How many documents a figure rests on: their effective number, and a warning where it is small."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from calibtrain.errors import UserError
from calibtrain.metrics.quantities import number
from calibtrain.runs.document_rows import read_documents
from calibtrain.runs.evaluation_records import EvaluationRecord

FEW = 20
"""With fewer documents than this, intervals over them are rough."""


def effective_documents(evaluation: EvaluationRecord) -> float | None:
    """Returns Kish's effective number of documents, (sum w)^2 / sum w^2 of their events w.

    It comes from the evaluation, else from the table of documents beside its file.

    Returns:
        None where neither is there.

    References:
        Kish, Survey Sampling, Wiley 1965.
    """
    if evaluation.effective_documents is not None:
        return evaluation.effective_documents
    table = None if evaluation.path is None else evaluation.path.with_suffix(".parquet")
    if table is None or not table.is_file():
        return None
    weights = _events(table)
    squares = sum(w * w for w in weights)
    return sum(weights) ** 2 / squares if squares else None


def _events(table: Path) -> list[float]:
    try:
        return read_documents(table, ["tokens"])["tokens"].to_pylist()
    except UserError:
        return []  # a damaged table costs the warning alone; `evaluate` names it where it is needed


def few_documents(evaluations: Iterable[EvaluationRecord]) -> list[str]:
    """Returns a warning for each text of which few documents were scored."""
    found: dict[tuple[str, int], list[tuple[str, float]]] = {}
    for each in evaluations:
        effective = effective_documents(each)
        least = min(each.documents, each.documents if effective is None else effective)
        if least < FEW:
            key = (f"{each.corpus}-{each.split}", each.documents)
            found.setdefault(key, []).append((each.event, least))
    return [_warning(name, documents, dict(scored)) for (name, documents), scored in found.items()]


def _warning(name: str, documents: int, scored: dict[str, float]) -> str:
    events = " and by ".join(scored)
    if documents < 2:
        return f"Only one document was scored by {events} ({name}): no interval over documents."
    least = min(scored.values())
    unequal = (
        f" of unequal length, worth {number(least, 1)} of equal length,"
        if least < 0.9 * documents
        else ""
    )
    return (
        f"Only {documents:,} documents{unequal} were scored by {events} ({name}): intervals over "
        f"fewer than {FEW} are rough."
    )


def unlike_texts(evaluations: Sequence[EvaluationRecord]) -> list[str]:
    """Returns a warning where evaluations that are compared did not score the very same text."""
    sizes = {each.bytes for each in evaluations}
    hashes = {each.sample.text_hash for each in evaluations if each.sample}
    if len(sizes) <= 1 and len(hashes) <= 1:
        return []
    return [
        "The arms were not scored on the same text: differences may come from the text, not from "
        "the settings."
    ]
