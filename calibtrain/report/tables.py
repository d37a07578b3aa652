"""The tables of results: a study's means and arms, a run's evaluations, what was held fixed."""

import math
from collections.abc import Sequence
from functools import partial
from html import escape

from calibtrain.report.cells import (
    code,
    estimate,
    explained,
    note,
    num,
    prose,
    row_head,
    table,
    td,
    th,
)
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
from calibtrain.report.results import Evaluation, HeldFixed, Run, Study
from calibtrain.report.signatures import mixed_note
from calibtrain.report.uncertainty import no_interval, no_seed_interval


def quantity_heads(event: str = "token") -> list[str]:
    """Titles of the columns of figures; some are of an event."""
    return [
        th(q.name, q.unit.replace("/token", f"/{event}"), numeric=True) for q in QUANTITIES.values()
    ]


# --- a study -------------------------------------------------------------------------------------


def result_table(
    study: Study, comparison: Comparison, evaluation: str, event: str = "token"
) -> str:
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
                num(
                    value,
                    shown(key, value),
                    half,
                    "" if half is None else shown_half(key, half),
                    no_seed_interval(summary.seeds),
                )
            )
        cells.append(num(summary.seeds, count(summary.seeds)))
        rows.append(cells)
    scored = [arm.scored.get(evaluation) for arm in study.arms if evaluation in arm.evaluations]
    tempered = ", ".join(dict.fromkeys(e.tempered for e in scored if e and e.tempered))
    name = f"{evaluation} ({tempered})" if tempered else evaluation
    return table(
        f"{name}: mean over seeds ± half width of the 95 % interval",
        [*heads, *quantity_heads(event), th("Seeds", numeric=True)],
        rows,
    ) + mixed_note(scored, QUANTITIES)


def _setting_head(path: str) -> str:
    return th("Vocabulary", "tokens") if path == VOCABULARY else th(setting_name(path).capitalize())


def arms_table(study: Study) -> str:
    """A row an arm: its status, its size and its own results in the main evaluation."""
    rows = []
    for arm in study.arms:
        values, scored = arm.evaluations.get(study.main, {}), arm.scored.get(study.main)
        rows.append(
            [
                row_head(arm.name),
                _status(arm.status),
                *_size_cells(arm.run),
                td("–") if arm.run is None else code(arm.run.config_hash, shorten=16),
                *(
                    estimate(
                        values.get(key),
                        partial(shown, key),
                        None if scored is None else scored.intervals.get(key),
                        no_interval(scored, key) if values else "no evaluation",
                    )
                    for key in QUANTITIES
                ),
            ]
        )
    size = [*_SIZE_HEADS, th("Configuration", "hash")]
    head = [th("Arm"), th("Status"), *size, *quantity_heads()]
    suffix = f": {study.main}, with 95 % intervals over documents" if study.main else ""
    mixed = mixed_note([a.scored.get(study.main) for a in study.arms if a.evaluations], QUANTITIES)
    return table(f"Every arm{suffix}", head, rows) + mixed


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


# --- a run ---------------------------------------------------------------------------------------


def evaluations_table(evaluations: Sequence[Evaluation], event: str = "token") -> str:
    """A row an evaluation of one event: its figures and their intervals over documents."""
    rows = [
        [
            _evaluation_head(e),
            num(e.values.get("bytes"), text_bytes(e.values.get("bytes"))),
            *(_figure(e, key) for key in QUANTITIES),
        ]
        for e in evaluations
    ]
    head = [th("Evaluation"), th("Scored", numeric=True)]
    caption = f"Evaluations by {event}, with 95 % intervals over documents"
    found = table(caption, [*head, *quantity_heads(event)], rows, quiet=event == "token")
    noted = (f"{e.corpus}, {e.split}: {text}" for e in evaluations for text in e.notes)
    return found + "".join(map(note, dict.fromkeys(noted))) + mixed_note(evaluations, QUANTITIES)


def _evaluation_head(evaluation: Evaluation) -> str:
    below = ", ".join(filter(None, (f"step {count(evaluation.step)}", evaluation.tempered)))
    return explained(f"{evaluation.corpus}, {evaluation.split}", below, short=True)


def _figure(evaluation: Evaluation, key: str) -> str:
    return estimate(
        evaluation.values.get(key),
        partial(shown, key),
        evaluation.intervals.get(key),
        no_interval(evaluation, key),
    )


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
