"""Tables of results: of a study, its arms and controls; of a run, its evaluations."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from calibtrain.figures.comparable import Lead, pairs_of
from calibtrain.figures.display import (
    compact,
    count,
    duration,
    memory_bytes,
    plural,
    setting_name,
    setting_value,
    shown_apart,
    text_bytes,
)
from calibtrain.figures.grouping import VOCABULARY, Comparison, summary_of
from calibtrain.metrics.quantities import MAIN, NOTHING, QUANTITIES, number, quantity_name
from calibtrain.report.blocks import (
    Block,
    Cell,
    Head,
    Table,
    apart,
    code,
    estimate,
    figure,
    figure_heads,
    folded,
    mean,
    no_interval,
    no_seed_interval,
    note,
    num,
    status,
    titled,
)
from calibtrain.report.documents import effective_documents
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.records import HeldFixed
from calibtrain.runs.results import RunResults, StudyResults

_FIGURES = tuple(QUANTITIES[key] for key in MAIN)


# --- a study -------------------------------------------------------------------------------------


def result_table(
    study: StudyResults,
    comparison: Comparison,
    evaluation: str,
    event: str = "token",
    keys: Sequence[str] = MAIN,
) -> list[Block]:
    """Returns one row per combination of settings: the mean over seeds, and its half width.

    Args:
        study: the study.
        comparison: its groups.
        evaluation: name of the evaluation.
        event: the event that it predicts.
        keys: the figures, in the order of their columns.
    """
    quantities = [QUANTITIES[key] for key in keys]
    paths = list(comparison.settings)
    by_size = comparison.axis == "vocabulary" and VOCABULARY not in paths
    settings = ([VOCABULARY] if by_size else []) + paths
    heads = [_setting_head(path) for path in settings] or [Head("Arms")]
    rows = []
    for group in comparison.groups:
        summary = summary_of(study, group, evaluation)
        if summary is None:
            continue
        names = [setting_value(group.x)] if by_size else []
        names += [setting_value(group.settings.get(path)) for path in paths]
        figures = [
            mean(q, summary.mean.get(q.key), summary.half_width.get(q.key), summary.seeds)
            for q in quantities
        ]
        found = [arm.scored[evaluation] for arm in group.arms if evaluation in arm.scored]
        documents = num(found[0].documents if found else None, count)
        seeds = num(summary.seeds, count)
        rows.append([*map(titled, names or [group.label]), *figures, documents, seeds])
    scored = [arm.scored.get(evaluation) for arm in study.arms if evaluation in arm.evaluations]
    tempered = ", ".join(dict.fromkeys(e.tempered for e in scored if e and e.tempered))
    name = f"{evaluation} ({tempered})" if tempered else evaluation
    caption = f"{name}: mean over seeds ± half width of the 95 % interval"
    heads = [*heads, *figure_heads(quantities, event)]
    heads += [Head("Documents", "scored", numeric=True), Head("Seeds", numeric=True)]
    return [Table(caption, heads, rows)]


def difference_table(
    study: StudyResults, comparison: Comparison, lead: Lead, keys: Sequence[str]
) -> list[Block]:
    """Returns one row per pair of settings: differences, with intervals that hold together."""
    known = [key for key in keys if pairs_of(study, comparison, lead.evaluation, key)]
    if not known:
        return []
    pairs = pairs_of(study, comparison, lead.evaluation, known[0])
    rows = []
    for pair in pairs:
        cells = [titled(pair.name)]
        for key in known:
            if key not in pair.record.mean:
                cells.append(Cell(NOTHING, "num"))
                continue
            low, high, half = pair.ends(key, len(pairs))
            cells.append(
                apart(
                    pair.record.mean[key],
                    functools.partial(shown_apart, key),
                    None if half is None else (low, high),
                    no_seed_interval(pair.record.seeds),
                )
            )
        rows.append([*cells, num(pair.record.seeds, count)])
    caption = "Differences, paired over seeds"
    if any(pair.record.half_width.get(known[0]) is not None for pair in pairs):
        caption += ", with 95 % intervals"
        caption += f" that hold together for {len(pairs)} pairs" if len(pairs) > 1 else ""
        caption += "; those that exclude 0 are bold"
    heads = [Head(comparison.axis_name), *figure_heads((QUANTITIES[k] for k in known), lead.event)]
    return [Table(caption, [*heads, Head("Seeds", numeric=True)], rows)]


def _setting_head(path: str) -> Head:
    if path == VOCABULARY:
        return Head("Vocabulary", "tokens")
    return Head(setting_name(path).capitalize())


def arms_table(study: StudyResults) -> list[Block]:
    """Returns one row per arm: its status, its size and its results in the main evaluation."""
    rows = []
    for arm in study.arms:
        found, scored = arm.evaluations.get(study.main), arm.scored.get(study.main)
        values = found.numbers if found else {}
        how, run = arm.record.status, arm.run
        rows.append(
            [
                titled(arm.record.name),
                status(how, how if how in ("done", "failed", "stopped") else "other"),
                *_size_cells(run),
                Cell(NOTHING) if run is None else code(run.record.config_hash, shorten=16),
                *(
                    estimate(
                        values.get(q.key),
                        q.show,
                        scored.interval(q.key) if scored else None,
                        no_interval(scored, q.key) if values else "no evaluation",
                    )
                    for q in _FIGURES
                ),
            ]
        )
    heads = [Head("Arm"), Head("Status"), *_SIZE_HEADS, Head("Configuration", "hash")]
    suffix = f": {study.main}, with 95 % intervals over documents" if study.main else ""
    return [Table(f"Every arm{suffix}", [*heads, *figure_heads(_FIGURES)], rows)]


_SIZE_HEADS = (
    Head("Parameters", "all", numeric=True),
    Head("Body", "parameters", numeric=True),
    Head("Seen", "bytes of text", numeric=True),
    Head("Seen", "tokens", numeric=True),
    Head("Time", numeric=True),
)


def _size_cells(run: RunResults | None) -> list[Cell]:
    if run is None:
        return [Cell(NOTHING, "num")] * len(_SIZE_HEADS)
    last = run.training[-1] if run.training else None
    return [
        num(run.record.parameters.total, count),
        num(run.record.parameters.body, count),
        num(last.bytes if last else None, text_bytes),
        num(last.tokens if last else None, count),
        num(run.record.seconds, duration),
    ]


def controls_table(study: StudyResults) -> Table:
    """Returns the table of what was held fixed: the rule, and the spread over the arms."""
    rows = [
        [
            titled(row.quantity),
            Cell(row.rule, "prose"),
            _end(row.smallest, row.unit or ""),
            _end(row.largest, row.unit or ""),
            Cell(_spread(row)),
            status("✓ held", "done") if row.held else status("varies", "stopped"),
        ]
        for row in study.record.held_fixed
    ]
    ends = [Head("Smallest", numeric=True), Head("Largest", numeric=True)]
    heads = [Head("Quantity"), Head("Rule"), *ends, Head("Spread"), Head("Held")]
    return Table("What was held fixed", heads, rows, quiet=True)


def _end(value: float | str | None, unit: str) -> Cell:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return num(value, lambda amount: _amount(amount, unit))
    text = NOTHING if value is None else str(value)
    return Cell(text if len(text) <= 20 else text[:16] + "…", "num", title=text)


def _amount(value: float, unit: str) -> str:
    if unit == "bytes":
        return text_bytes(value)
    if abs(value) >= 1e9:
        text = compact(value)
    else:
        text = count(value) if float(value).is_integer() else f"{value:,.4g}"
    return f"{text} {unit}".strip()


def _spread(row: HeldFixed) -> str:
    low, high = row.smallest, row.largest
    if low is None or high is None:
        return NOTHING
    if low == high:
        return "none"
    if isinstance(low, str) or isinstance(high, str):
        return "differs"
    spread = 100 * (high - low) / abs(low) if low else math.inf
    if not math.isfinite(spread):
        return NOTHING
    return f"{spread:.2f} %" if spread >= 0.005 else "< 0.01 %"


# --- a run ---------------------------------------------------------------------------------------


def evaluations_table(evaluations: Sequence[EvaluationRecord], event: str = "token") -> list[Block]:
    """Returns one row per evaluation of an event: its figures and intervals over documents."""
    rows = []
    for e in evaluations:
        below = ", ".join(filter(None, (f"step {count(e.step)}", e.tempered)))
        head = titled(f"{e.corpus}, {e.split}", below, "titled")
        figures = [figure(e, q, no_interval(e, q.key)) for q in _FIGURES]
        rows.append([head, _scored(e), *figures])
    heads = [Head("Evaluation"), Head("Scored", numeric=True), *figure_heads(_FIGURES, event)]
    caption = f"Evaluations by {event}, with 95 % intervals over documents"
    table = Table(caption, heads, rows, quiet=event == "token")
    noted = [(f"{e.corpus}, {e.split}", text) for e in evaluations for text in e.notes or ()]
    return [table, *notes(noted)]


def _scored(evaluation: EvaluationRecord) -> Cell:
    """Returns how much text was scored, and in how many documents."""
    effective, documents = effective_documents(evaluation), evaluation.documents
    title = f"{evaluation.bytes:,} bytes in {plural(documents, 'document')}"
    if effective is not None:
        title += f", worth {number(effective, 1)} of equal length"
    cell = num(evaluation.bytes, text_bytes)
    return replace(cell, half=plural(documents, "document"), title=title)


def predictions_table(evaluation: EvaluationRecord) -> Table:
    """Returns one row with the main figures of predictions, those that they have."""
    quantities = [q for q in _FIGURES if q.key in evaluation.numbers and q.key != "bytes"]
    figures = [figure(evaluation, q, no_interval(evaluation, q.key)) for q in quantities]
    sizes = [num(evaluation.numbers.get("tokens"), count), num(evaluation.documents, count)]
    heads = [Head("Predictions of"), Head("Predictions", numeric=True)]
    heads += [Head("Documents", numeric=True), *figure_heads(quantities, evaluation.event)]
    caption = "With 95 % intervals over documents"
    return Table(caption, heads, [[titled(evaluation.corpus), *sizes, *figures]], quiet=True)


def notes(noted: Sequence[tuple[str, str]]) -> list[Block]:
    """Returns the notes on figures, each with the evaluations that it is about."""
    lines = dict.fromkeys(f"{owner}: {text}" for owner, text in noted)
    return [block for line in lines for block in note(line)]


def size_table(run: RunResults) -> Table:
    """Returns the table of a run's parameters by part, budget and memory."""
    parts, memory = run.record.parameters, run.record.memory
    rows = [
        [titled(f"Parameters, {part}"), num(getattr(parts, part), count)]
        for part in ("embedding", "unembedding", "body", "total")
    ]
    rows += [
        [titled(f"Budget, {name}"), num(value, _flops if name == "flops" else count)]
        for name, value in run.record.budget.numbers.items()
    ]
    rows += [
        [titled(f"Memory, {name}"), num(value, memory_bytes)]
        for name, value in (
            ("parameters", memory.parameters),
            ("optimizer", memory.optimizer),
            ("peak temporary", memory.peak_temporary),
            ("logits if materialised", memory.logits),
        )
        if value is not None
    ]
    heads = [Head("Quantity"), Head("Amount", numeric=True)]
    return Table("Size, budget and memory", heads, rows, quiet=True)


def _flops(value: float) -> str:
    return f"{value:.3e}"


# --- where figures come from ---------------------------------------------------------------------


def signature_blocks(owners: Mapping[str, Sequence[Mapping[str, str]]]) -> list[Block]:
    """Returns every signature, the figures that have it, and their owners.

    Args:
        owners: signatures of figures by their owner: a combination of settings, an evaluation or a
            head.
    """
    figures: dict[str, dict[str, None]] = {}
    whose: dict[str, dict[str, None]] = {}
    for owner, sets in owners.items():
        for each in sets:
            for key, signature in each.items():
                figures.setdefault(signature, {})[quantity_name(key)] = None
                whose.setdefault(signature, {})[owner] = None
    if not figures:
        return note(
            "These figures are of a version of calibtrain that wrote no signatures beside them."
        )
    rows = [
        [
            Cell(", ".join(figures[text]), "prose"),
            Cell("all" if len(whose[text]) == len(owners) else "; ".join(whose[text]), "prose"),
            Cell(text, "signature"),
        ]
        for text in sorted(figures, key=lambda s: (-len(figures[s]), s))
    ]
    heads = [Head("Figures"), Head("Of"), Head("Signature")]
    legend = (
        "event: what is predicted; conf: which probability is the confidence; bins, scheme, "
        "edges: how bins are made; T: temperature; corpus, tok: first digits of the hashes of "
        "the text and the tokenizer; v: version of calibtrain. Figures compare if their "
        "signatures are equal; those of bytes and words also where only tok differs."
    )
    title = f"{plural(len(rows), 'signature')} of {plural(len(owners), 'set')} of figures"
    return folded(
        title, [Table("How each figure was made", heads, rows, quiet=True), *note(legend)]
    )


def corpus_table(runs: Sequence[RunResults]) -> Table:
    """Returns the table of training corpora, with their hashes and the sizes of their splits."""
    corpora = list({run.record.corpus.content_hash: run.record.corpus for run in runs}.values())
    splits = list(dict.fromkeys(name for c in corpora for name in c.splits))
    rows = [
        [
            titled(c.name),
            Cell(c.source, "prose"),
            Cell(c.version),
            code(c.content_hash, shorten=16),
            *(_split_cell(c.splits.get(name)) for name in splits),
        ]
        for c in corpora
    ]
    heads = [Head("Corpus"), Head("Source"), Head("Version"), Head("Content hash")]
    sizes = [Head(name.capitalize(), "documents, bytes", numeric=True) for name in splits]
    return Table("Text", [*heads, *sizes], rows)


def _split_cell(split: Any) -> Cell:
    if split is None:
        return Cell(NOTHING, "num")
    return num(split.bytes, lambda size: f"{count(split.documents)}, {text_bytes(size)}")


def tokenizer_table(runs: Sequence[RunResults]) -> Table:
    """Returns the table of tokenizers, with their hashes."""
    kinds = list({run.record.tokenizer.hash: run.record.tokenizer for run in runs}.values())
    rows = [
        [
            titled(t.kind),
            num(t.vocab_size, count),
            num(t.bytes_per_token, lambda value: f"{value:.3f}"),
            code(t.hash, shorten=16),
        ]
        for t in sorted(kinds, key=lambda t: (t.kind, t.vocab_size))
    ]
    heads = [Head("Tokenizer"), Head("Vocabulary", "tokens", numeric=True)]
    return Table(
        "Vocabularies", [*heads, Head("Bytes per token", numeric=True), Head("Hash")], rows
    )
