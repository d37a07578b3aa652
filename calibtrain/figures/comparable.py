"""What of a study may be compared between its settings, and the paired differences of it.

A token is a different event in every vocabulary: between vocabularies, events of bytes compare, and
of the figures of tokens only those per byte of text.
"""

from dataclasses import dataclass

from calibtrain.figures.display import setting_value
from calibtrain.figures.grouping import Comparison, Group
from calibtrain.metrics.quantities import QUANTITIES
from calibtrain.metrics.student import student_quantile
from calibtrain.runs.records import DifferenceRecord
from calibtrain.runs.results import StudyResults
from calibtrain.runs.seeds import settings_key


@dataclass(frozen=True)
class Lead:
    """The evaluation of a study that a reader wants first.

    Attributes:
        evaluation: its name; empty where nothing was evaluated.
        event: what it predicts.
        compares: whether its figures per event compare between the settings.
    """

    evaluation: str
    event: str
    compares: bool

    def allows(self, key: str) -> bool:
        """Whether a figure compares between the settings."""
        return self.compares or QUANTITIES[key].unit == "bits/byte"

    def of_event(self, key: str) -> str:
        """The name of a figure, with its event: `Byte ECE`; figures per byte need none."""
        name = QUANTITIES[key].name
        if QUANTITIES[key].unit == "bits/byte":
            return name
        return f"{self.event.capitalize()} {name if name.isupper() else name.lower()}"


@dataclass(frozen=True)
class Pair:
    """Two settings that differ in the axis alone: `name` is `4,096 against 512`."""

    name: str
    short: str
    record: DifferenceRecord

    def ends(self, key: str, pairs: int) -> tuple[float, float, float | None]:
        """The mean difference of a figure, and the ends of its interval among `pairs` intervals.

        The ends are the half width's distance below and above; the half width is None without one.
        """
        mean, half = self.record.mean[key], widened(self.record, key, pairs)
        reach = half or 0.0
        return mean - reach, mean + reach, half


def lead_of(study: StudyResults, comparison: Comparison) -> Lead:
    """Returns what to show first: tokens where all settings share a tokenizer, else bytes.

    Without byte events, it is that of tokens, of which only the figures per byte compare.
    """
    scored = [arm.scored[study.main] for arm in study.arms if study.main in arm.scored]
    tokenizers = {e.tokenizer_hash for e in scored}
    if comparison.axis != "vocabulary" and len(tokenizers) <= 1:
        return Lead(study.main, "token", compares=True)
    if names := study.by_event.get("byte"):
        return Lead(names[0], "byte", compares=True)
    return Lead(study.main, "token", compares=False)


def pairs_of(
    study: StudyResults, comparison: Comparison, evaluation: str, key: str
) -> tuple[Pair, ...]:
    """Returns the pairs of settings that differ along the axis alone, with a paired difference.

    Args:
        study: the study.
        comparison: its groups.
        evaluation: name of the evaluation.
        key: the figure that both have.
    """
    groups = {settings_key(group.settings): group for group in comparison.groups}
    found = []
    for row in study.differences:
        group = groups.get(settings_key(row.settings))
        reference = groups.get(settings_key(row.reference))
        if row.evaluation != evaluation or key not in row.mean or not group or not reference:
            continue
        if comparison.axis == "category" or group.series == reference.series:
            series = f"{group.series}: " if group.series and len(comparison.series) > 1 else ""
            one, other = _place(group), _place(reference)
            found.append(Pair(f"{series}{one} against {other}", f"{series}{one} − {other}", row))
    return tuple(found)


def widened(difference: DifferenceRecord, key: str, pairs: int) -> float | None:
    """Returns the half width of one of `pairs` intervals that hold together at 95 %.

    By Bonferroni's inequality, each is Student's interval at the level 1 - 0.05 / pairs.

    Returns:
        None where the difference has no interval.
    """
    half = difference.half_width.get(key)
    if half is None or pairs < 2:
        return half
    freedom = difference.seeds - 1
    wider = student_quantile(freedom, 1 - 0.05 / pairs) / student_quantile(freedom, 0.95)
    return half * wider


def _place(group: Group) -> str:
    return setting_value(group.x)
