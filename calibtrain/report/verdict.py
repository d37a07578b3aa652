"""The first sentence of a report: it claims what an interval allows, and no more."""

import shlex
from collections.abc import Sequence

from calibtrain.figures.comparable import Lead, Pair, pairs_of
from calibtrain.figures.display import plural, shown, shown_apart, shown_ends, shown_range
from calibtrain.figures.grouping import Comparison
from calibtrain.figures.trend import Trend, trend_of
from calibtrain.report.blocks import no_interval
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.results import StudyResults

BYTES = 8_000
"""Bytes of text that the page advises to score."""


def study_verdict(
    study: StudyResults, comparison: Comparison, lead: Lead, folder: str
) -> tuple[str, str]:
    """Returns what a study shows of calibration, and how its intervals were made.

    The intervals of all pairs of settings hold together at 95 % (Bonferroni).

    Args:
        study: the study.
        comparison: its groups.
        lead: the evaluation that compares.
        folder: of the study, for commands.
    """
    what = comparison.axis_name.lower()
    if not lead.evaluation:
        return "No arm has results yet, so there is nothing to compare.", ""
    if not lead.compares:
        text = (
            f"Whether {what} changes calibration cannot be told from token figures, which are not "
            "comparable between vocabularies."
        )
        command = f"calibtrain evaluate {shlex.quote(folder)} --events byte --bytes {BYTES}"
        return text, f"Byte events are: `{command}` scores them for every arm."
    name = f"{lead.event} ECE"
    pairs = pairs_of(study, comparison, lead.evaluation, "ece")
    if not pairs:
        return f"There is only one setting with results, so {name} has nothing to compare with.", ""
    known = [pair for pair in pairs if pair.record.half_width.get("ece") is not None]
    if not known:
        largest = max(pairs, key=lambda pair: abs(pair.record.mean["ece"]))
        return (
            f"With one seed per setting no interval over seeds can be given, so that an effect of "
            f"{what} on {name} can be neither claimed nor excluded: the largest difference is "
            f"{shown_apart('ece', largest.record.mean['ece'])} ({largest.name}).",
            "",
        )
    verdict, how = _compared(known, what, name)
    ece, gap = (trend_of(comparison, lead, key) for key in ("ece", "signed_gap"))
    if ece and gap:
        verdict += f" {_trends(ece, gap, name)}"
        how += ". Changes with a doubling are slopes on the logarithm of the size, a line a seed"
    return verdict, f"{how}."


def _trends(ece: Trend, gap: Trend, name: str) -> str:
    """Returns the sentence on what each doubling of the vocabulary changes."""
    changes = []
    for key, trend in (("ece", ece), ("signed_gap", gap)):
        ends = shown_range(key, trend.slope - trend.half, trend.slope + trend.half)
        changes.append(f"{shown_apart(key, trend.slope)} {ends}")
    clear = [text for text, trend in (("ECE", ece), ("the signed gap", gap)) if trend.clear]
    told = {0: "neither is told apart from 0", 2: "both are told apart from 0"}.get(
        len(clear), f"only {clear[0]} is told apart from 0" if clear else ""
    )
    return (
        f"With each doubling of the vocabulary, over {plural(ece.seeds, 'seed')}, {name} changes "
        f"by {changes[0]} and the signed gap by {changes[1]}: {told}."
    )


def _compared(pairs: Sequence[Pair], what: str, name: str) -> tuple[str, str]:
    seeds = sorted({pair.record.seeds for pair in pairs})
    with_seeds = plural(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
    clear = [pair for pair in pairs if _clear(pair, len(pairs))]
    largest = max(clear or pairs, key=lambda pair: abs(pair.record.mean["ece"]))
    low, high, _ = largest.ends("ece", len(pairs))
    difference = (
        f"{shown_apart('ece', largest.record.mean['ece'])} {shown_range('ece', low, high)} "
        f"({largest.name})"
    )
    if not clear:
        which = "the difference" if len(pairs) == 1 else "the largest difference"
        text = (
            f"No effect of {what} on {name} was detected with {with_seeds}: {which} is {difference}"
        )
    else:
        which = "" if len(pairs) == 1 else f" in {len(clear)} of {len(pairs)} comparisons"
        most = "the difference" if len(clear) == 1 else "the largest such difference"
        text = (
            f"{name[0].upper()}{name[1:]} differs with {what}{which}, told apart with {with_seeds}:"
            f" {most} is {difference}"
        )
    how = "Brackets are 95 % intervals (Student’s t) of differences that are paired over seeds"
    if len(pairs) > 1:
        how += f", widened so that all {len(pairs)} hold together (Bonferroni)"
    return f"{text}.", how


def _clear(pair: Pair, pairs: int) -> bool:
    low, high, half = pair.ends("ece", pairs)
    return half is not None and (low > 0 or high < 0)


def run_verdict(main: EvaluationRecord | None) -> str:
    """Returns what the main evaluation of a run shows of its calibration."""
    if main is None:
        return "This run has no evaluation of its own yet: what follows was measured on the way."
    gap, ece = main.interval("signed_gap"), main.interval("ece")
    said_gap = f"{shown('signed_gap', main.signed_gap)}{shown_ends('signed_gap', gap)}"
    said_ece = f"{shown('ece', main.ece)}{shown_ends('ece', ece)}"
    predictions = main.event in ("prediction", "candidate")  # of any model, not of a run
    where = f"In {main.corpus}" if predictions else f"On the {main.split} split of {main.corpus}"
    if gap is None or ece is None:
        return (
            f"{where}, the ECE is {said_ece} and the signed gap {said_gap}, and how sure that is "
            f"cannot be told ({no_interval(main, 'ece')})."
        )
    if gap.lower > 0 or gap.upper < 0:
        sense = "over-confident" if gap.lower > 0 else "under-confident"
        return (
            f"{where}, the model is {sense} on average: signed gap {said_gap}, with an ECE of "
            f"{said_ece}."
        )
    if ece.lower > 0:
        return (
            f"{where}, the model is miscalibrated (ECE {said_ece}), though neither over- nor "
            f"under-confidence on average was detected (signed gap {said_gap})."
        )
    return f"{where}, no miscalibration was detected: ECE {said_ece}, signed gap {said_gap}."
