"""Figures of an ensemble beside its members: `calibtrain ensemble --score --save NAME`."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from calibtrain.figures.display import plain, plural, shown
from calibtrain.figures.named_points import Row, ends_of, marked_panel, reached
from calibtrain.figures.panels import Figure, Panel, around_zero
from calibtrain.metrics.quantities import QUANTITIES, number
from calibtrain.runs.instrument_records import EnsembleScoreRecord, MemberScore

_OWN = "<b>ensemble</b>"  # no member is called so, as their names are plain


def ensemble_figure(record: EnsembleScoreRecord, name: str) -> Figure:
    """Returns bits per byte and byte ECE of an ensemble beside its members', and the differences.

    Args:
        record: the scores.
        name: that they are kept under.
    """
    names = _names(record)
    own = record.evaluation
    settings = ", ".join(f"{key} {value}" for key, value in _said(record.settings))
    size = f"{int(own.bytes):,} bytes of {plural(own.documents, 'document')}"
    panels = [_scores(record, names, key) for key in ("bits_per_byte", "ece")]
    panels += [
        panel
        for key in ("bits_per_byte", "ece")
        if (panel := _differences(record.members, names, key)) is not None
    ]
    return Figure(
        anchor="ensemble",
        title=f"An ensemble beside its members: {name}",
        caption="Figures with 95 % intervals over documents; and the ensemble's less each "
        f"member's, paired over documents: below 0, the ensemble is better. {size} "
        f"({own.corpus}); {record.method}: {settings}.",
        panels=tuple(panels),
    )


def score_panel(record: EnsembleScoreRecord, key: str) -> Panel:
    """Returns one figure of an ensemble and its members, with intervals.

    Args:
        record: the scores.
        key: bits_per_byte or ece.
    """
    return _scores(record, _names(record), key)


def short_names(paths: Sequence[str]) -> list[str]:
    """Returns the last part of each path; the whole of those whose last parts are alike.

    Example:
        >>> short_names(["runs/a", "runs/b", "other/b"])
        ['a', 'runs/b', 'other/b']
    """
    last = [PurePosixPath(path).name or path for path in paths]
    return [path if last.count(name) > 1 else name for path, name in zip(paths, last, strict=True)]


def _names(record: EnsembleScoreRecord) -> list[str]:
    return list(map(plain, short_names([each.run for each in record.members])))


def _scores(record: EnsembleScoreRecord, names: Sequence[str], key: str) -> Panel:
    rows: list[Row] = [
        (name, value, ends_of(each.evaluation.interval(key)) if each.evaluation else None)
        for name, each in zip(names, record.members, strict=True)
        if (value := getattr(each, key)) is not None
    ]
    own = record.evaluation
    rows.append((_OWN, getattr(record, key), ends_of(own.interval(key))))
    unit = QUANTITIES[key]
    title = unit.unit if key == "bits_per_byte" else f"ECE ({unit.unit})"
    return marked_panel(
        "Bits per byte" if key == "bits_per_byte" else "Byte ECE",
        rows,
        key,
        "var(--cat-0)",
        lambda value: shown(key, value),
        y={"title": title, **({} if key == "bits_per_byte" else {"rangemode": "tozero"})},
        last="var(--cat-1)",
    )


def _differences(members: Sequence[MemberScore], names: Sequence[str], key: str) -> Panel | None:
    rows: list[Row] = [
        (name, found.estimate, ends_of(found))
        for name, each in zip(names, members, strict=True)
        if (found := (each.difference or {}).get(key)) is not None
    ]
    if not rows:
        return None
    what = "bits per byte" if key == "bits_per_byte" else "byte ECE"
    return marked_panel(
        f"Ensemble less member: {what}",
        rows,
        f"difference-{key}",
        "var(--cat-1)",
        lambda value: number(value, 4, signed=True),
        y={"title": "difference", "range": around_zero(reached(rows))},
    )


def _said(settings: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for key, value in settings.items():
        if value is not None:
            said = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            yield key, said
