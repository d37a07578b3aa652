"""Arms that differ in their seed alone, summarised: mean, interval, signatures of each figure."""

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from calibtrain.metrics.student import student_half_width
from calibtrain.runs.record import Record
from calibtrain.runs.records import DifferenceRecord, SummaryRecord

SEED = "seed"
_NOT_FIGURES = (
    "format",
    "step",
    "vocab_size",
    "context",
    "bins",
    "documents",
    "limit",
    "temperature",
    "beam",
    "ratio",
    "warm_up",
    "longest_word",
)
"""Numbers of an evaluation that say how it was made, so that their difference says nothing."""


class Scored(Protocol):
    """An arm with the figures of its evaluations by name."""

    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def vocab_size(self) -> int | None: ...
    @property
    def evaluations(self) -> Mapping[str, Record]: ...


def without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that seeds of one combination share."""
    return {name: value for name, value in settings.items() if name != SEED}


def settings_key(settings: Mapping[str, Any]) -> str:
    """Returns a text that is equal for arms which differ in their seed alone."""
    return json.dumps(without_seed(settings), sort_keys=True)


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float | None]:
    """Returns the mean over seeds, and half the width of its 95 % interval (None for one seed)."""
    return sum(values) / len(values), student_half_width(values)


def summarise(arms: Iterable[Scored], names: Sequence[str] | None = None) -> list[SummaryRecord]:
    """Returns mean and interval over the seeds of every combination of the other settings.

    Args:
        arms: those without evaluations do not count.
        names: of the evaluations; None means those of a combination's first arm. A figure that
            some seed does not have (AUROC where all is wrong) has no mean.
    """
    groups: dict[str, list[Scored]] = {}
    for arm in arms:
        if arm.evaluations:
            groups.setdefault(settings_key(arm.settings), []).append(arm)
    rows = []
    for first, *others in groups.values():
        members = [first, *others]
        for name in first.evaluations if names is None else names:
            found = [arm.evaluations[name] for arm in members if name in arm.evaluations]
            if not found:
                continue
            keys = [key for key in found[0].numbers if all(key in each.numbers for each in found)]
            spread = {
                key: mean_and_half_width([float(each.numbers[key]) for each in found])
                for key in keys
            }
            rows.append(
                SummaryRecord(
                    settings=without_seed(first.settings),
                    vocab_size=first.vocab_size,
                    seeds=len(found),
                    evaluation=name,
                    mean={key: mean for key, (mean, _) in spread.items()},
                    half_width={key: half for key, (_, half) in spread.items()},
                    signatures=_signatures(found),
                )
            )
    return rows


def differences(arms: Iterable[Scored]) -> list[DifferenceRecord]:
    """Returns how every combination of settings differs from every one before it, seed by seed.

    The seeds of two combinations are paired: they read the same text in the same order. Figures
    that some seed lacks are left out, as are pairs without a seed in common.
    """
    groups: dict[str, dict[Any, Scored]] = {}
    for arm in arms:
        if arm.evaluations:
            groups.setdefault(settings_key(arm.settings), {})[arm.settings.get(SEED)] = arm
    rows = []
    for reference, members in itertools.combinations(groups.values(), 2):
        pairs = [(members[seed], reference[seed]) for seed in members if seed in reference]
        for name in dict.fromkeys(name for arm, _ in pairs for name in arm.evaluations):
            found = [
                (arm.evaluations[name].numbers, other.evaluations[name].numbers)
                for arm, other in pairs
                if name in arm.evaluations and name in other.evaluations
            ]
            if not found:
                continue
            keys = [key for key in found[0][0] if all(key in each for two in found for each in two)]
            spread = {
                key: mean_and_half_width([float(mine[key] - theirs[key]) for mine, theirs in found])
                for key in keys
                if key not in _NOT_FIGURES
            }
            rows.append(
                DifferenceRecord(
                    evaluation=name,
                    settings=without_seed(pairs[0][0].settings),
                    reference=without_seed(pairs[0][1].settings),
                    seeds=len(found),
                    mean={key: mean for key, (mean, _) in spread.items()},
                    half_width={key: half for key, (_, half) in spread.items()},
                )
            )
    return rows


def _signatures(found: Sequence[Record]) -> dict[str, list[str]]:
    """Returns how each figure was made: one signature, unless unlike figures were mixed."""
    texts: dict[str, dict[str, None]] = {}
    for each in found:
        for name, text in (each.get("signatures") or {}).items():
            texts.setdefault(name, {})[text] = None
    return {name: list(distinct) for name, distinct in texts.items()}
