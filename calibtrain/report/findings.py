"""The paragraph at the top of a report: what the numbers show, and no more."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from calibtrain.figures.display import (
    count,
    plural,
    setting_value,
    shown,
    shown_ends,
    shown_with_half,
    text_bytes,
)
from calibtrain.figures.grouping import Comparison, Group, Series
from calibtrain.metrics.quantities import number
from calibtrain.runs.records import EvaluationRecord, SummaryRecord
from calibtrain.runs.results import RunResults, StudyResults

Point = tuple[Group, SummaryRecord]
MOST_SERIES = 3
"""With more series than this, one sentence describes all of them together."""


@dataclass(frozen=True)
class Findings:
    """Findings, and what they do not show: plain text, one paragraph each."""

    found: str
    limits: str


def study_findings(study: StudyResults, comparison: Comparison) -> Findings:
    """Returns the findings of a study's main evaluation."""
    points = _points(study, comparison.groups, comparison)
    if not points:
        begun = _arms(study, comparison)
        return Findings(f"{begun} No arm has results yet, so there is nothing to compare.", "")
    sentences = [_arms(study, comparison), _scored(study)]
    many = len(comparison.series) > MOST_SERIES
    for series in [None] if many else comparison.series:
        found = points if series is None else _points(study, series.groups, comparison)
        if found:
            sentences.append(_ece(found, comparison, series))
    sentences.append(_gap(points, comparison))
    sentences.append(_compression(study, points, comparison))
    limits = [_seeds(points)]
    if comparison.axis == "vocabulary":
        limits.append(
            "ECE and signed gap are per token, and a token is a different event in every "
            "vocabulary: bits per byte is the scale on which vocabularies compare directly."
        )
    return Findings(_unbroken(" ".join(filter(None, sentences))), _unbroken(" ".join(limits)))


def _points(study: StudyResults, groups: Sequence[Group], comparison: Comparison) -> list[Point]:
    found = [(group, comparison.summary(study, group)) for group in groups]
    return [(g, s) for g, s in found if s is not None and "ece" in s.mean]


def _where(comparison: Comparison, group: Group, series: Series | None = None) -> str:
    if comparison.axis == "vocabulary" and (series is not None or len(comparison.series) == 1):
        return f"V = {setting_value(group.x)}"
    return group.label.replace(" · ", ", ") if series is None else group.short


def _arms(study: StudyResults, comparison: Comparison) -> str:
    done = sum(arm.record.status == "done" for arm in study.arms)
    total = len(study.arms)
    whole = f"All {total:,} arms" if done == total > 1 else f"{done:,} of {plural(total, 'arm')}"
    groups = comparison.groups
    if comparison.axis == "vocabulary" and groups:
        sizes = sorted({g.x for g in groups})
        what = f"{plural(len(sizes), 'vocabulary size')} from {sizes[0]:,} to {sizes[-1]:,}"
    elif comparison.axis == "number" and groups:
        values = sorted({g.x for g in groups})
        what = (
            f"{len(values)} values of {comparison.axis_name.lower()} from "
            f"{setting_value(values[0])} to {setting_value(values[-1])}"
        )
    else:
        what = plural(len(groups), "setting")
    others = f" in {len(comparison.series)} series" if len(comparison.series) > 1 else ""
    seeds = sorted({len(g.arms) for g in groups}) or [0]
    each = plural(seeds[-1], "seed") + (" each" if len(seeds) == 1 else " at most")
    return f"{whole} finished: {what}{others}, {each}."


def _scored(study: StudyResults) -> str:
    scored = [arm.scored[study.main] for arm in study.arms if study.main in arm.scored]
    if not scored:
        return ""
    sizes = {e.bytes for e in scored}
    first = scored[0]
    if len(sizes) == 1:
        amount = f"the same {text_bytes(first.bytes)} of text for every arm"
    else:
        low, high = min(sizes), max(sizes)
        amount = f"but not on the same text: {count(low)} to {count(high)} bytes"
    return f"The figures are for the {first.split} split of {first.corpus}, {amount}."


def _value(key: str, summary: SummaryRecord) -> str:
    return shown_with_half(key, summary.mean.get(key), summary.half_width.get(key))


def _ece(points: Sequence[Point], comparison: Comparison, series: Series | None) -> str:
    several = len(comparison.series) > 1
    prefix = f"With {series.name}, mean" if series and several else "Mean"
    if len(points) == 1:
        group, row = points[0]
        return f"{prefix} ECE is {_value('ece', row)} at {_where(comparison, group, series)}."
    along = comparison.axis != "category" and not (series is None and several)
    low, high = _extremes(points, "ece")
    if not along:
        return (
            f"{prefix} ECE is lowest at {_where(comparison, low[0], series)} "
            f"({_value('ece', low[1])}) and highest at {_where(comparison, high[0], series)} "
            f"({_value('ece', high[1])}){_overlap(low[1], high[1], 'the two')}."
        )
    (first, a), (last, b) = points[0], points[-1]
    text = (
        f"{prefix} ECE goes from {_value('ece', a)} at {_where(comparison, first, series)} "
        f"to {_value('ece', b)} at {_where(comparison, last, series)}"
    )
    steps = [y[1].mean["ece"] - x[1].mean["ece"] for x, y in itertools.pairwise(points)]
    if len(points) > 2:
        if all(step > 0 for step in steps):
            text += ", rising at every step"
        elif all(step < 0 for step in steps):
            text += ", falling at every step"
        else:
            text += (
                f", not steadily (lowest {shown('ece', low[1].mean['ece'])} at "
                f"{_where(comparison, low[0], series)}, highest "
                f"{shown('ece', high[1].mean['ece'])} at {_where(comparison, high[0], series)})"
            )
    return f"{text}{_overlap(a, b, 'the two ends' if len(points) > 2 else 'the two')}."


def _extremes(points: Sequence[Point], key: str) -> tuple[Point, Point]:
    """Returns the points with the lowest and the highest mean."""
    ordered = sorted(points, key=lambda point: point[1].mean[key])
    return ordered[0], next(p for p in points if p[1].mean[key] == ordered[-1][1].mean[key])


def _overlap(a: SummaryRecord, b: SummaryRecord, which: str) -> str:
    x, y = a.half_width.get("ece"), b.half_width.get("ece")
    if x is None or y is None:
        return ""
    apart = abs(a.mean["ece"] - b.mean["ece"]) > x + y
    return f"; the 95 % intervals over seeds of {which} {'do not overlap' if apart else 'overlap'}"


def _gap(points: Sequence[Point], comparison: Comparison) -> str:
    gaps = [(group, row) for group, row in points if "signed_gap" in row.mean]
    if not gaps:
        return ""
    low, high = _extremes(gaps, "signed_gap")
    smallest, largest = low[1].mean["signed_gap"], high[1].mean["signed_gap"]
    everywhere = " everywhere" if len(gaps) > 1 else ""
    if len(gaps) == 1:
        spread = shown("signed_gap", smallest)
    else:
        spread = (
            f"{shown('signed_gap', smallest)} at {_where(comparison, low[0])} to "
            f"{shown('signed_gap', largest)} at {_where(comparison, high[0])}"
        )
    about = "The mean signed gap (confidence minus accuracy) is"
    if smallest > 0:
        text = f"{about} positive{everywhere}, over-confident on average: {spread}"
    elif largest < 0:
        text = f"{about} negative{everywhere}, under-confident on average: {spread}"
    else:
        text = f"{about} of both signs, under-confident to over-confident: {spread}"
    unsure = [
        group
        for group, row in gaps
        if (half := row.half_width.get("signed_gap")) is not None
        and abs(row.mean["signed_gap"]) <= half
    ]
    if unsure and len(unsure) == len(gaps):
        text += "; its interval over seeds includes zero" + everywhere
    elif unsure:
        text += "; its interval over seeds includes zero at " + _list(
            [_where(comparison, group) for group in unsure]
        )
    return text + "."


def _compression(study: StudyResults, points: Sequence[Point], comparison: Comparison) -> str:
    known = [(g, row) for g, row in points if "bits_per_byte" in row.mean]
    if not known:
        return ""
    low, high = _extremes(known, "bits_per_byte")
    if len(known) == 1:
        text = f"Bits per byte are {_value('bits_per_byte', low[1])}"
    else:
        text = (
            f"Bits per byte are lowest at {_where(comparison, low[0])} "
            f"({_value('bits_per_byte', low[1])}) and highest at {_where(comparison, high[0])} "
            f"({_value('bits_per_byte', high[1])})"
        )
    exact = study.exact_entropy
    if exact is not None:
        text += f"; the source's exact entropy rate is {number(exact, 3)}"
    return text + "."


def _seeds(points: Sequence[Point]) -> str:
    seeds = {row.seeds for _, row in points}
    if seeds == {1}:
        return (
            "With one seed per setting there is no interval over seeds, and a difference cannot be "
            "told from the variation between runs."
        )
    text = "Intervals (±, 95 %) show variation between seeds only, not the sampling of the text"
    if 1 in seeds:
        text += "; settings with one seed have none"
    if 2 in seeds:
        text += "; with two seeds they are wide (12.7 standard errors) and hardly informative"
    return text + "."


def _unbroken(text: str) -> str:
    """Returns the text without line breaks inside `V = 512`, `0.1 ± 0.2`, `95 %` and `212 kB`."""
    for apart in (" = ", " ± ", " %"):
        text = text.replace(apart, apart.replace(" ", "\u00a0"))
    return re.sub(r"(?<=\d) (?=[kMGTP]?B\b)", "\u00a0", text)


def _list(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


# --- a run ---------------------------------------------------------------------------------------


def evaluation_findings(evaluation: EvaluationRecord) -> Findings:
    """Returns the findings of predictions: what the interval of their signed gap allows."""
    values, gap = evaluation.numbers, evaluation.interval("signed_gap")
    if gap is None:
        verdict = "There is no interval, so that no claim is made about over- or under-confidence."
    elif gap.lower > 0:
        verdict = "They are over-confident."
    elif gap.upper < 0:
        verdict = "They are under-confident."
    else:
        verdict = "Neither over- nor under-confidence on average was detected."
    size = f"{count(values['tokens'])} predictions of {evaluation.corpus}"
    found = (
        f"{verdict} For {size}, mean confidence is "
        f"{shown('mean_confidence', values.get('mean_confidence'))} and accuracy "
        f"{shown('accuracy', values.get('accuracy'))}: the signed gap is "
        f"{shown('signed_gap', evaluation.signed_gap)}{shown_ends('signed_gap', gap)}; the ECE is "
        f"{shown('ece', evaluation.ece)}{shown_ends('ece', evaluation.interval('ece'))}."
    )
    limits = f"Brackets are 95 % intervals over {plural(evaluation.documents, 'document')}."
    return Findings(_unbroken(found), _unbroken(limits) if gap else "")


def run_findings(run: RunResults) -> Findings:
    """Returns the findings of a single run."""
    record, corpus = run.record, run.record.corpus
    seen = run.training[-1].bytes if run.training else None
    text = f" ({text_bytes(seen)} of {corpus.name})" if seen else f" of {corpus.name}"
    made = f"after {record.step:,} of {plural(record.steps, 'step')}{text}"
    if record.status == "imported":
        made = "imported, not trained here"
    begun = (
        f"A model with {plural(record.parameters.total, 'parameter')} and a vocabulary of "
        f"{record.tokenizer.vocab_size:,}, {made}."
    )
    main = run.main
    if main is None:
        text = f"{begun} It has no evaluation of its own yet: what follows was measured on the way."
        return Findings(text, "")
    values, gap = main.numbers, main.signed_gap
    sense = "over-confident" if gap > 0 else "under-confident" if gap < 0 else "neither"
    sentences = [
        begun,
        f"On the {main.split} split of {main.corpus} ({text_bytes(main.bytes)}) it needs "
        f"{shown('bits_per_byte', values['bits_per_byte'])} bits per byte; its ECE is "
        f"{shown('ece', main.ece)}{shown_ends('ece', main.interval('ece'))} and its signed gap "
        f"{shown('signed_gap', gap)} ({sense} on average: mean confidence "
        f"{shown('mean_confidence', values.get('mean_confidence'))} against an "
        f"accuracy of {shown('accuracy', values.get('accuracy'))}).",
    ]
    entropy, bits = values.get("entropy_bits_per_byte"), values["bits_per_byte"]
    if entropy is not None:
        side = "below" if entropy < bits else "above" if entropy > bits else "equal to"
        sentences.append(
            f"The mean entropy of its predictions is {shown('entropy_bits_per_byte', entropy)} "
            f"bits per byte, {side} what it pays on the real text; for a calibrated model the two "
            "agree."
        )
    exact = corpus.entropy_bits_per_byte
    if exact is not None:
        sentences.append(f"The source's exact entropy rate is {number(exact, 3)} bits per byte.")
    limits = "One run says nothing about the variation between seeds"
    if any((main.intervals or {}).values()):
        limits += "; brackets, here and below, are 95 % intervals over documents"
    return Findings(" ".join(sentences), f"{limits}.")
