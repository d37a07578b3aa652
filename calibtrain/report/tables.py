"""Tables of results: of a study, its arms and controls; of a run, its evaluations and heads."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from calibtrain.figures.display import (
    compact,
    count,
    duration,
    memory_bytes,
    plural,
    setting_name,
    setting_value,
    text_bytes,
)
from calibtrain.figures.grouping import VOCABULARY, Comparison, summary_of
from calibtrain.figures.signatures import mixed_in
from calibtrain.metrics.quantities import COMPARED, MAIN, NOTHING, QUANTITIES, number, quantity_name
from calibtrain.report.blocks import (
    Block,
    Cell,
    Head,
    Table,
    code,
    estimate,
    figure,
    figure_heads,
    folded,
    mean,
    no_interval,
    note,
    num,
    status,
    titled,
)
from calibtrain.runs.records import EvaluationRecord, HeadComparisonRecord, HeadRow, HeldFixed
from calibtrain.runs.results import RunResults, StudyResults

_FIGURES = tuple(QUANTITIES[key] for key in MAIN)


# --- a study -------------------------------------------------------------------------------------


def result_table(
    study: StudyResults, comparison: Comparison, evaluation: str, event: str = "token"
) -> list[Block]:
    """Returns one row per combination of settings: the mean over seeds, and its half width."""
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
            for q in _FIGURES
        ]
        rows.append([*map(titled, names or [group.label]), *figures, num(summary.seeds, count)])
    scored = [arm.scored.get(evaluation) for arm in study.arms if evaluation in arm.evaluations]
    tempered = ", ".join(dict.fromkeys(e.tempered for e in scored if e and e.tempered))
    name = f"{evaluation} ({tempered})" if tempered else evaluation
    caption = f"{name}: mean over seeds ± half width of the 95 % interval"
    heads = [*heads, *figure_heads(_FIGURES, event), Head("Seeds", numeric=True)]
    return [Table(caption, heads, rows), *note(mixed_in(scored, MAIN))]


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
    mixed = mixed_in([arm.scored.get(study.main) for arm in study.arms if arm.evaluations], MAIN)
    table = Table(f"Every arm{suffix}", [*heads, *figure_heads(_FIGURES)], rows)
    return [table, *note(mixed)]


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
        rows.append([head, num(e.bytes, text_bytes), *figures])
    heads = [Head("Evaluation"), Head("Scored", numeric=True), *figure_heads(_FIGURES, event)]
    caption = f"Evaluations by {event}, with 95 % intervals over documents"
    table = Table(caption, heads, rows, quiet=event == "token")
    noted = [(f"{e.corpus}, {e.split}", text) for e in evaluations for text in e.notes or ()]
    return [table, *_notes(noted), *note(mixed_in(evaluations, MAIN))]


def predictions_table(evaluation: EvaluationRecord) -> Table:
    """Returns one row with the main figures of predictions, those that they have."""
    quantities = [q for q in _FIGURES if q.key in evaluation.numbers and q.key != "bytes"]
    figures = [figure(evaluation, q, no_interval(evaluation, q.key)) for q in quantities]
    sizes = [num(evaluation.numbers.get("tokens"), count), num(evaluation.documents, count)]
    heads = [Head("Predictions of"), Head("Predictions", numeric=True)]
    heads += [Head("Documents", numeric=True), *figure_heads(quantities, evaluation.event)]
    caption = "With 95 % intervals over documents"
    return Table(caption, heads, [[titled(evaluation.corpus), *sizes, *figures]], quiet=True)


def _notes(noted: Sequence[tuple[str, str]]) -> list[Block]:
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


# --- temperature heads ---------------------------------------------------------------------------

HEAD_DECIMALS = 4
"""Decimals of the figures of heads, whose differences are small."""


def heads_blocks(found: HeadComparisonRecord) -> list[Block]:
    """Returns the comparison of temperature heads, with one table per corpus."""
    text = (
        f"Fitted on {found.fitted_on.corpus}-{found.fitted_on.split} to the frozen model of step "
        f"{found.checkpoint.step:,}. Brackets are "
        "95 % intervals of the difference to no head, over the same documents: where one holds 0, "
        "the text does not tell them apart. A head that lowers the ECE and raises the NLL has made "
        "the predictions worse."
    )
    heads = [Head("Head"), *figure_heads(QUANTITIES[key] for key in COMPARED)]
    heads += [Head("Parameters", numeric=True), Head("Fitted in", numeric=True)]
    tables = [
        Table(
            f"{corpus.name} ({'in domain' if corpus.in_domain else 'out of domain'})",
            heads,
            [
                [
                    titled(row.head),
                    *(_head_cell(row, key) for key in COMPARED),
                    num(row.parameters, count),
                    num(row.seconds, duration),
                ]
                for row in corpus.rows
            ],
        )
        for corpus in found.corpora
    ]
    signatures = {
        f"{corpus.name}: {row.head}": [row.signatures or {}]
        for corpus in found.corpora
        for row in corpus.rows
    }
    absent = (
        "The comparison is of a version of calibtrain that wrote no signatures beside its figures."
    )
    noted = [(corpus.name, text) for corpus in found.corpora for text in corpus.notes or ()]
    return [*tables, *_notes(noted), *note(text), *signature_blocks(signatures, absent)]


def _head_cell(row: HeadRow, key: str) -> Cell:
    value, apart = row.numbers[key], (row.differences or {}).get(key)
    shown = QUANTITIES[key].show(value, HEAD_DECIMALS)
    if apart is None:
        return num(value, lambda _: shown)
    low, high = (number(end, HEAD_DECIMALS, signed=True) for end in (apart.lower, apart.upper))
    return Cell(
        shown,
        "num",
        half=f"[{low}, {high}]",
        exact={"value": value, "lower": apart.lower, "upper": apart.upper},
        title=f"{value!r}; less no head {apart.difference!r}, 95 % from {apart.lower!r} to "
        f"{apart.upper!r}",
    )


# --- where figures come from ---------------------------------------------------------------------


def signature_blocks(
    owners: Mapping[str, Sequence[Mapping[str, str]]],
    absent: str = "The evaluations are of a version of calibtrain that wrote no signatures beside "
    "its figures.",
) -> list[Block]:
    """Returns every signature, the figures that have it, and their owners.

    Args:
        owners: signatures of figures by their owner: a combination of settings, an evaluation or a
            head.
        absent: the text shown where there are no signatures.
    """
    figures: dict[str, dict[str, None]] = {}
    whose: dict[str, dict[str, None]] = {}
    for owner, sets in owners.items():
        for each in sets:
            for key, signature in each.items():
                figures.setdefault(signature, {})[quantity_name(key)] = None
                whose.setdefault(signature, {})[owner] = None
    if not figures:
        return note(absent)
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
        "signatures are equal."
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
