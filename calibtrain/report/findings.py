"""The texts at the top of a report: what the numbers show, and no more."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from calibtrain.figures.comparable import Lead
from calibtrain.figures.display import (
    count,
    plural,
    setting_value,
    shown,
    shown_ends,
    shown_with_half,
    text_bytes,
)
from calibtrain.figures.grouping import Comparison, Group, summary_of
from calibtrain.metrics.quantities import number
from calibtrain.report.finetuning import base_run
from calibtrain.report.verdict import run_verdict, study_verdict
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.records import SummaryRecord
from calibtrain.runs.results import RunResults, StudyResults

Point = tuple[Group, SummaryRecord]


@dataclass(frozen=True)
class Findings:
    """What a page says above its figures and tables: plain text.

    Attributes:
        verdict: the first sentence.
        text: which text was read and scored.
        how: how the intervals were made, and what to do where there are none.
        found: what the numbers show besides, as a paragraph.
        limits: what they do not show.
    """

    verdict: str
    text: str
    how: str
    found: str
    limits: str


def study_findings(
    study: StudyResults, comparison: Comparison, lead: Lead, folder: str
) -> Findings:
    """Returns the findings of a study's leading evaluation; `folder` is named in commands."""
    verdict, how = (_unbroken(text) for text in study_verdict(study, comparison, lead, folder))
    points = _points(study, comparison.groups, lead)
    text = _unbroken(" ".join(filter(None, (_read(study.runs), _scored(study, lead)))))
    if not points:
        return Findings(verdict, text, how, _arms(study, comparison), "")
    sentences = [_arms(study, comparison)]
    if lead.compares:
        sentences.append(_gap(points, comparison, lead))
    sentences.append(_compression(study, points, comparison))
    return Findings(
        verdict, text, how, _unbroken(" ".join(filter(None, sentences))), _seeds(points)
    )


def _read(runs: Sequence[RunResults]) -> str:
    """Returns which corpora were read, from the runs' own records."""
    corpora = {run.record.corpus.content_hash: run.record.corpus for run in runs}
    return " ".join(f"{c.name}: {c.source.rstrip('.')}." for c in corpora.values())


def _points(study: StudyResults, groups: Sequence[Group], lead: Lead) -> list[Point]:
    found = [(group, summary_of(study, group, lead.evaluation)) for group in groups]
    return [(g, s) for g, s in found if s is not None and "ece" in s.mean]


def _where(comparison: Comparison, group: Group) -> str:
    if comparison.axis == "vocabulary" and len(comparison.series) == 1:
        return f"V = {setting_value(group.x)}"
    return group.label.replace(" · ", ", ")


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


def _scored(study: StudyResults, lead: Lead) -> str:
    name = lead.evaluation
    scored = [arm.scored[name] for arm in study.arms if name in arm.scored]
    if not scored:
        return ""
    first = scored[0]
    sizes = {e.bytes for e in scored}
    texts = {e.sample.text_hash for e in scored if e.sample}
    amount = f"{text_bytes(first.bytes)} in {plural(first.documents, 'document')}"
    if len(sizes) == 1 and len(texts) <= 1:
        if first.sample:
            whole = f"{text_bytes(first.sample.of_bytes)} in {first.sample.of_documents:,}"
            amount += f" (of {whole})"
        amount = f"the same {amount}" if len(scored) > 1 else amount
    else:
        amount = f"but not the same text: {count(min(sizes))} to {count(max(sizes))} bytes"
    return f"Scored by {lead.event}: its {first.split} split, {amount}."


def _value(key: str, summary: SummaryRecord) -> str:
    return shown_with_half(key, summary.mean.get(key), summary.half_width.get(key))


def _extremes(points: Sequence[Point], key: str) -> tuple[Point, Point]:
    """Returns the points with the lowest and the highest mean."""
    ordered = sorted(points, key=lambda point: point[1].mean[key])
    return ordered[0], next(p for p in points if p[1].mean[key] == ordered[-1][1].mean[key])


def _gap(points: Sequence[Point], comparison: Comparison, lead: Lead) -> str:
    """Returns on which side of zero the intervals of the mean signed gap lie."""
    gaps = [(group, row) for group, row in points if "signed_gap" in row.mean]
    if not gaps:
        return ""
    about = f"The mean {lead.event} signed gap (confidence minus accuracy) is"
    low, high = _extremes(gaps, "signed_gap")
    spread = f"{_value('signed_gap', low[1])} at {_where(comparison, low[0])}"
    if len(gaps) > 1:
        spread += f" to {_value('signed_gap', high[1])} at {_where(comparison, high[0])}"
    sides: dict[str, list[str]] = {}
    for group, row in gaps:
        half, gap = row.half_width.get("signed_gap"), row.mean["signed_gap"]
        if half is not None:
            clear = "over-confident" if gap > half else "under-confident" if gap < -half else ""
            sides.setdefault(clear, []).append(_where(comparison, group))
    told = [
        f"{'; its interval excludes 0' if side else '; its interval holds 0'} "
        f"{'everywhere' if len(where) == len(gaps) > 1 else 'at ' + _list(where)}"
        f"{f' ({side} on average)' if side else ''}"
        for side, where in sides.items()
    ]
    return f"{about} {spread}{''.join(told)}."


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


def run_findings(run: RunResults) -> Findings:
    """Returns the findings of a single run."""
    record, main = run.record, run.main
    verdict = _unbroken(run_verdict(main))
    seen = run.training[-1].bytes if run.training else None
    read = f" ({text_bytes(seen)} of text)" if seen else ""
    made = f"after {record.step:,} of {plural(record.steps, 'step')}{read}"
    if record.status == "imported":
        made = "imported, not trained here"
    elif run.finetune is not None:
        objective = run.finetune.get("objective", "sft")
        made = f"fine-tuned ({objective}) from {base_run(run)}, {made}"
    begun = (
        f"A model with {plural(record.parameters.total, 'parameter')} and a vocabulary of "
        f"{record.tokenizer.vocab_size:,}, {made}."
    )
    if main is None:
        return Findings(verdict, _read([run]), "", begun, "")
    values = main.numbers
    whose = "its" if main.corpus == record.corpus.name else f"{main.corpus},"
    scored = f"Scored by token: {whose} {main.split} split, {text_bytes(main.bytes)} in "
    scored += f"{plural(main.documents, 'document')}."
    bits = f"{_ends(main, 'bits_per_byte')} bits per byte"
    sentences = [
        begun,
        f"Its mean confidence is {_ends(main, 'mean_confidence')}, its accuracy "
        f"{_ends(main, 'accuracy')}. It needs {bits}",
    ]
    if "entropy_bits_per_byte" in values:
        sentences[-1] += (
            f"; the mean entropy of its own predictions is {_ends(main, 'entropy_bits_per_byte')}, "
            "which for a calibrated model agrees"
        )
    sentences[-1] += "."
    exact = record.corpus.entropy_bits_per_byte
    if exact is not None:
        sentences.append(f"The source's exact entropy rate is {number(exact, 3)} bits per byte.")
    known = any((main.intervals or {}).values())
    how = "Brackets, here and below, are 95 % intervals over documents." if known else ""
    limits = "One run says nothing about the variation between seeds."
    text = _unbroken(f"{_read([run])} {scored}")
    return Findings(verdict, text, how, _unbroken(" ".join(sentences)), limits)


def evaluation_findings(evaluation: EvaluationRecord) -> Findings:
    """Returns the findings of predictions alone."""
    size = f"{count(evaluation.numbers['tokens'])} predictions in "
    size += f"{plural(evaluation.documents, 'document')}."
    how = f"Brackets are 95 % intervals over {plural(evaluation.documents, 'document')}."
    known = evaluation.interval("ece") is not None
    return Findings(
        _unbroken(run_verdict(evaluation)), size, _unbroken(how) if known else "", "", ""
    )


def _ends(evaluation: EvaluationRecord, key: str) -> str:
    value = shown(key, evaluation.numbers.get(key))
    return f"{value}{shown_ends(key, evaluation.interval(key))}"
