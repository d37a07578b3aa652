"""Groups the arms of a study by all settings but the seed, on an axis and in series."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from calibtrain.figures.display import setting_name, setting_value
from calibtrain.runs.records import SummaryRecord
from calibtrain.runs.results import ArmResults, RunResults, StudyResults
from calibtrain.runs.seeds import settings_key, without_seed

VOCABULARY = "tokenizer.vocab_size"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

Settings = Mapping[str, Any]
X = float | str
Axis = Literal["vocabulary", "number", "category"]


@dataclass(frozen=True)
class Group:
    """Arms that differ only in their seed; every figure shows them in `colour` and `dash`."""

    settings: Settings
    x: X
    series: str
    label: str
    short: str
    arms: tuple[ArmResults, ...]
    colour: str
    dash: str

    @property
    def done(self) -> tuple[ArmResults, ...]:
        """The arms that finished."""
        return tuple(arm for arm in self.arms if arm.record.status == "done")

    @property
    def run(self) -> RunResults | None:
        """One run of the group, a finished one if possible."""
        runs = [arm.run for arm in (*self.done, *self.arms) if arm.run is not None]
        return runs[0] if runs else None


@dataclass(frozen=True)
class Series:
    """Groups that differ only along the axis, in its order."""

    name: str
    groups: tuple[Group, ...]
    colour: str
    dash: str


@dataclass(frozen=True)
class Comparison:
    """The groups of a study, and the axis of the comparison."""

    axis: Axis
    axis_name: str
    groups: tuple[Group, ...]
    series: tuple[Series, ...]
    shades: int
    """Number of sequential colours that the groups use."""
    settings: tuple[str, ...]
    """Dotted paths of the settings that vary, except the seed."""

    def summary(self, study: StudyResults, group: Group) -> SummaryRecord | None:
        """Returns the mean and interval of a group in the study's main evaluation."""
        return summary_of(study, group, study.main)


def summary_of(study: StudyResults, group: Group, evaluation: str) -> SummaryRecord | None:
    """Returns the mean and interval over the seeds of a group, from ablation.json."""
    for row in study.summary:
        if row.evaluation == evaluation and settings_key(row.settings) == settings_key(
            group.settings
        ):
            return row
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def compare(study: StudyResults) -> Comparison:
    """Groups the arms by their settings without `seed`, and chooses an axis.

    The axis is the vocabulary size if it varies, else the first varying setting that is a number,
    else the groups themselves. Every combination of the other settings is a series.
    """
    arms: dict[str, list[ArmResults]] = {}
    for arm in study.arms:
        arms.setdefault(settings_key(arm.settings), []).append(arm)
    settings = {key: without_seed(members[0].settings) for key, members in arms.items()}
    sizes: dict[str, X] = {
        key: size for key, members in arms.items() if (size := _vocab_size(members)) is not None
    }
    varying = tuple(
        dict.fromkeys(
            name
            for tree in settings.values()
            for name in tree
            if len({json.dumps(other.get(name)) for other in settings.values()}) > 1
        )
    )
    numeric = [n for n in varying if all(_is_number(tree.get(n)) for tree in settings.values())]

    axis: Axis
    axis_path: str | None
    if len(set(sizes.values())) > 1:
        axis, axis_path, axis_name = "vocabulary", VOCABULARY, "Vocabulary size"
        places: dict[str, X] = sizes
    elif numeric:
        axis, axis_path = "number", numeric[0]
        axis_name = setting_name(axis_path).capitalize()
        places = {key: tree[axis_path] for key, tree in settings.items()}
    else:
        axis, axis_path = "category", None
        axis_name = ", ".join(setting_name(name).capitalize() for name in varying) or "Arms"
        places = {
            key: _label({name: tree.get(name) for name in varying}) or "all seeds"
            for key, tree in settings.items()
        }
        if len(varying) == 1:
            axis_path = varying[0]
            places = {key: setting_value(tree.get(axis_path)) for key, tree in settings.items()}

    others = [
        name
        for name in varying
        if axis != "category"
        and name != axis_path
        and not _follows({key: tree.get(name) for key, tree in settings.items()}, places)
    ]
    names = {
        key: _label({name: tree.get(name) for name in others}) for key, tree in settings.items()
    }
    order = [key for key in arms if key in places]
    if axis != "category":
        order.sort(key=lambda key: places[key])
    steps = list(dict.fromkeys(places[key] for key in order))
    lines = list(dict.fromkeys(names[key] for key in arms))
    ordered = axis != "category" and len(steps) > 1
    groups = []
    for key in order:
        x = places[key]
        short = f"V = {x:,}" if axis == "vocabulary" else _axis_label(axis_path, x)
        index = steps.index(x)
        groups.append(
            Group(
                settings=settings[key],
                x=x,
                series=names[key],
                label=" · ".join(part for part in (short, names[key]) if part),
                short=short,
                arms=tuple(arms[key]),
                colour=f"var(--seq-{index})" if ordered else f"var(--cat-{index % 7})",
                dash=DASHES[lines.index(names[key]) % len(DASHES)],
            )
        )
    series = tuple(
        Series(
            name=line,
            groups=tuple(g for g in groups if g.series == line),
            colour="var(--ink-soft)" if len(lines) == 1 else f"var(--cat-{i % 7})",
            dash=DASHES[i % len(DASHES)],
        )
        for i, line in enumerate(lines)
    )
    return Comparison(
        axis=axis,
        axis_name=axis_name,
        groups=tuple(groups),
        series=tuple(s for s in series if s.groups),
        shades=len(steps) if ordered else 0,
        settings=varying,
    )


def _vocab_size(arms: Iterable[ArmResults]) -> int | None:
    for arm in arms:
        size = arm.vocab_size or arm.settings.get(VOCABULARY)
        if isinstance(size, int):
            return size
    return None


def _follows(values: Mapping[str, Any], places: Mapping[str, X]) -> bool:
    """Returns whether the place on the axis determines a setting (one path per vocabulary size)."""
    seen: dict[X, set[str]] = {}
    for key, place in places.items():
        seen.setdefault(place, set()).add(json.dumps(values[key]))
    return all(len(found) == 1 for found in seen.values())


def _label(settings: Settings) -> str:
    return " · ".join(
        f"{setting_name(name)} {setting_value(value)}" for name, value in settings.items()
    )


def _axis_label(path: str | None, x: X) -> str:
    return str(x) if path is None else f"{setting_name(path)} {setting_value(x)}"


def scale_of(values: Iterable[float], *, least: float = 8.0) -> Literal["log", "linear"]:
    """Returns "log" for positive numbers that span at least a factor of `least`, else "linear"."""
    found = list(values)
    spread = bool(found) and min(found) > 0 and max(found) / min(found) >= least
    return "log" if spread else "linear"
