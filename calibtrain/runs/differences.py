"""Differences between combinations of settings, paired over their seeds."""

from collections.abc import Iterable, Sequence
from itertools import combinations

from calibtrain.metrics.student import student_half_width, student_quantile
from calibtrain.runs.record import Record
from calibtrain.runs.records import DifferenceRecord
from calibtrain.runs.seeds import SEED, Scored, settings_key, without_seed


def paired(arms: Iterable[Scored], names: Sequence[str]) -> list[DifferenceRecord]:
    """Returns the differences between all pairs of combinations, later less earlier.

    Seeds that only one of the two has do not count. A figure that a seed lacks has no difference.

    Args:
        arms: those without evaluations do not count.
        names: of the evaluations.
    """
    groups: dict[str, list[Scored]] = {}
    for arm in arms:
        if arm.evaluations:
            groups.setdefault(settings_key(arm.settings), []).append(arm)
    rows = []
    for name in names:
        for reference, group in combinations(groups.values(), 2):
            first, second = _by_seed(group, name), _by_seed(reference, name)
            seeds = [seed for seed in first if seed in second]
            if not seeds:
                continue
            pairs = [(first[seed].numbers, second[seed].numbers) for seed in seeds]
            keys = [key for key in pairs[0][0] if all(key in a and key in b for a, b in pairs)]
            apart = {key: [float(a[key] - b[key]) for a, b in pairs] for key in keys}
            rows.append(
                DifferenceRecord(
                    evaluation=name,
                    settings=without_seed(group[0].settings),
                    reference=without_seed(reference[0].settings),
                    seeds=len(seeds),
                    mean={key: sum(values) / len(values) for key, values in apart.items()},
                    half_width={key: student_half_width(values) for key, values in apart.items()},
                )
            )
    return rows


def _by_seed(arms: Iterable[Scored], name: str) -> dict[object, Record]:
    return {
        arm.settings.get(SEED): arm.evaluations[name] for arm in arms if name in arm.evaluations
    }


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
