"""The tables of a report. Cells show rounded numbers; the exact value is in `data-value`."""

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from calibtrain.report.display import (
    QUANTITIES,
    compact,
    count,
    duration,
    memory_bytes,
    setting_name,
    setting_value,
    shown,
    shown_half,
    text_bytes,
)
from calibtrain.report.grouping import VOCABULARY, Comparison, summary_of
from calibtrain.report.results import HeldFixed, Run, Study


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, quiet: bool = False
) -> str:
    """A table that scrolls inside its own box. Head and cells are HTML already.

    A `quiet` caption is for listeners only: the heading above the table has said it to readers.
    """
    titles = "".join(head)
    said = "" if quiet else f'<p class="caption">{escape(caption)}</p>'
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return (
        f'{said}<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">'
        f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def th(text: str, unit: str = "", *, numeric: bool = False) -> str:
    """A column's title with its unit beneath."""
    below = f"<small>{escape(unit)}</small>" if unit else ""
    kind = ' class="num"' if numeric else ""
    return f'<th scope="col"{kind}>{escape(text)}{below}</th>'


def row_head(text: str) -> str:
    """The cell that names its row."""
    return f'<th scope="row">{escape(text)}</th>'


def td(text: str) -> str:
    """A cell of text."""
    return f"<td>{escape(text)}</td>"


def prose(text: str) -> str:
    """A cell of text that may take several lines."""
    return f'<td class="prose">{escape(text)}</td>'


def num(value: float | None, text: str, half: float | None = None, half_text: str = "") -> str:
    """A cell of a number: rounded to the eye, exact in its title and in `data-value`."""
    if value is None:
        return '<td class="num">–</td>'
    exact = escape(json.dumps(value))
    if half is None:
        return f'<td class="num" data-value="{exact}" title="{exact}">{escape(text)}</td>'
    width = escape(json.dumps(half))
    return (
        f'<td class="num" data-value="{exact}" data-half-width="{width}" '
        f'title="{exact} ± {width}">{escape(text)}'
        f'<span class="half">±&#8202;{escape(half_text)}</span></td>'
    )


def code(text: str, *, shorten: int | None = None) -> str:
    """A cell of a hash or a path; shortened ones keep the whole in their title."""
    short = text if shorten is None or len(text) <= shorten else text[:shorten] + "…"
    return f'<td><code title="{escape(text)}">{escape(short)}</code></td>'


def _quantity_heads() -> list[str]:
    return [th(q.name, q.unit, numeric=True) for q in QUANTITIES.values()]


# --- a study -------------------------------------------------------------------------------------


def result_table(study: Study, comparison: Comparison, evaluation: str) -> str:
    """A row a combination of settings: the mean over its seeds and the half width beside it."""
    paths = list(comparison.settings)
    by_size = comparison.axis == "vocabulary" and VOCABULARY not in paths
    settings = ([VOCABULARY] if by_size else []) + paths
    heads = [_setting_head(path) for path in settings] or [th("Arms")]
    rows = []
    for group in comparison.groups:
        summary = summary_of(study, group, evaluation)
        if summary is None:
            continue
        names = [setting_value(group.x)] if by_size else []
        names += [setting_value(group.settings.get(path)) for path in paths]
        cells = [row_head(name) for name in names or [group.label]]
        for key in QUANTITIES:
            value, half = summary.mean.get(key), summary.half_width.get(key)
            cells.append(
                num(value, shown(key, value), half, "" if half is None else shown_half(key, half))
            )
        cells.append(num(summary.seeds, count(summary.seeds)))
        rows.append(cells)
    return table(
        f"{evaluation}: mean over seeds ± half width of the 95 % interval",
        [*heads, *_quantity_heads(), th("Seeds", numeric=True)],
        rows,
    )


def _setting_head(path: str) -> str:
    return th("Vocabulary", "tokens") if path == VOCABULARY else th(setting_name(path).capitalize())


def arms_table(study: Study) -> str:
    """A row an arm: its status, its size and its own results in the main evaluation."""
    rows = []
    for arm in study.arms:
        values = arm.evaluations.get(study.main, {})
        rows.append(
            [
                row_head(arm.name),
                _status(arm.status),
                *_size_cells(arm.run),
                td("–") if arm.run is None else code(arm.run.config_hash, shorten=16),
                *(num(values.get(key), shown(key, values.get(key))) for key in QUANTITIES),
            ]
        )
    size = [*_SIZE_HEADS, th("Configuration", "hash")]
    head = [th("Arm"), th("Status"), *size, *_quantity_heads()]
    suffix = f": {study.main}" if study.main else ""
    return table(f"Every arm{suffix}", head, rows)


_SIZE_HEADS = (
    th("Parameters", "all", numeric=True),
    th("Body", "parameters", numeric=True),
    th("Seen", "bytes of text", numeric=True),
    th("Seen", "tokens", numeric=True),
    th("Time", numeric=True),
)


def _size_cells(run: Run | None) -> list[str]:
    if run is None:
        return ['<td class="num">–</td>'] * len(_SIZE_HEADS)
    last = run.training[-1] if run.training else None
    seen, tokens = (last.bytes, last.tokens) if last else (None, None)
    return [
        num(run.parameters.total, count(run.parameters.total)),
        num(run.parameters.body, count(run.parameters.body)),
        num(seen, text_bytes(seen)),
        num(tokens, count(tokens)),
        num(run.seconds, duration(run.seconds)),
    ]


def _status(status: str) -> str:
    kind = status if status in ("done", "failed", "stopped") else "other"
    return f'<td><span class="status {kind}">{escape(status)}</span></td>'


def controls_table(study: Study) -> str:
    """What was held fixed: the rule, and the spread that was achieved."""
    rows = []
    for row in study.held_fixed:
        rows.append(
            [
                row_head(row.quantity),
                prose(row.rule),
                _end(row.smallest, row.unit),
                _end(row.largest, row.unit),
                td(_spread(row)),
                '<td><span class="status done">✓ held</span></td>'
                if row.held
                else '<td><span class="status stopped">varies</span></td>',
            ]
        )
    head = [th("Quantity"), th("Rule"), th("Smallest", numeric=True), th("Largest", numeric=True)]
    return table("What was held fixed", [*head, th("Spread"), th("Held")], rows, quiet=True)


def _end(value: float | str | None, unit: str) -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return num(value, _amount(value, unit))
    text = "–" if value is None else str(value)
    short = text if len(text) <= 20 else text[:16] + "…"
    return f'<td class="num" title="{escape(text)}">{escape(short)}</td>'


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
        return "–"
    if low == high:
        return "none"
    if isinstance(low, str) or isinstance(high, str):
        return "differs"
    spread = 100 * (high - low) / abs(low) if low else math.inf
    if not math.isfinite(spread):
        return "–"
    return f"{spread:.2f} %" if spread >= 0.005 else "< 0.01 %"


# --- provenance ----------------------------------------------------------------------------------


def corpus_table(runs: Sequence[Run]) -> str:
    """Every corpus that was trained on, with its hash and the size of its splits."""
    corpora = list({run.corpus.content_hash: run.corpus for run in runs}.values())
    splits = list(dict.fromkeys(name for c in corpora for name in c.splits))
    rows = [
        [
            row_head(c.name),
            prose(c.source),
            td(c.version),
            code(c.content_hash, shorten=16),
            *(_split_cell(c.splits.get(name)) for name in splits),
        ]
        for c in corpora
    ]
    head = [th("Corpus"), th("Source"), th("Version"), th("Content hash")]
    sizes = [th(name.capitalize(), "documents, bytes", numeric=True) for name in splits]
    return table("Text", [*head, *sizes], rows)


def _split_cell(split: Any) -> str:
    if split is None:
        return '<td class="num">–</td>'
    return num(split.bytes, f"{count(split.documents)}, {text_bytes(split.bytes)}")


def tokenizer_table(runs: Sequence[Run]) -> str:
    """Every vocabulary, with its hash."""
    kinds = list({run.tokenizer.hash: run.tokenizer for run in runs}.values())
    rows = [
        [
            row_head(t.kind),
            num(t.vocab_size, count(t.vocab_size)),
            num(
                t.bytes_per_token, "–" if t.bytes_per_token is None else f"{t.bytes_per_token:.3f}"
            ),
            code(t.hash, shorten=16),
        ]
        for t in sorted(kinds, key=lambda t: (t.kind, t.vocab_size))
    ]
    head = [th("Tokenizer"), th("Vocabulary", "tokens", numeric=True)]
    return table("Vocabularies", [*head, th("Bytes a token", numeric=True), th("Hash")], rows)


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Name and value pairs; values are HTML already."""
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{value}</dd></div>" for name, value in rows)
    return f'<dl class="facts">{items}</dl>'


def joined(values: Iterable[object]) -> str:
    """The distinct values, comma by comma."""
    return escape(", ".join(dict.fromkeys(str(value) for value in values)))


# --- a run ---------------------------------------------------------------------------------------


def evaluations_table(run: Run) -> str:
    """A row an evaluation, the one the page is about first."""
    main = run.main
    others = [e for e in run.evaluations if e is not main]
    rows = [
        [
            row_head(e.corpus),
            td(e.split),
            num(e.step, count(e.step)),
            num(e.values.get("bytes"), text_bytes(e.values.get("bytes"))),
            *(num(e.values.get(key), shown(key, e.values.get(key))) for key in QUANTITIES),
        ]
        for e in ([main] if main else []) + others
    ]
    head = [th("Corpus"), th("Split"), th("Step", numeric=True), th("Scored", numeric=True)]
    return table("Evaluations", [*head, *_quantity_heads()], rows, quiet=True)


def size_table(run: Run) -> str:
    """Parameters by part, budget and memory of a run."""
    parts, memory = run.parameters, run.memory
    rows = [
        [row_head(f"Parameters, {part}"), num(value, count(value))]
        for part, value in (
            ("embedding", parts.embedding),
            ("unembedding", parts.unembedding),
            ("body", parts.body),
            ("total", parts.total),
        )
    ]
    rows += [
        [
            row_head(f"Budget, {name}"),
            num(value, f"{value:.3e}" if name == "flops" else count(value)),
        ]
        for name, value in run.budget.items()
        if value is not None
    ]
    rows += [
        [row_head(f"Memory, {name}"), num(value, memory_bytes(value))]
        for name, value in (
            ("parameters", memory.parameters),
            ("optimizer", memory.optimizer),
            ("peak temporary", memory.peak_temporary),
            ("logits if materialised", memory.logits),
        )
        if value is not None
    ]
    head = [th("Quantity"), th("Amount", numeric=True)]
    return table("Size, budget and memory", head, rows, quiet=True)
