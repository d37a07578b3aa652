"""The calibration suite as tables: a metric a row, with its interval and how far it may be off."""

from collections.abc import Sequence
from functools import partial

from calibtrain.report.cells import estimate, explained, num, table, td, th
from calibtrain.report.display import number
from calibtrain.report.grouping import Comparison, summary_of
from calibtrain.report.results import Evaluation, Study
from calibtrain.report.signatures import mixed_note, parse
from calibtrain.report.suite import SUITE, Metric, shown_metric
from calibtrain.report.uncertainty import no_interval, no_seed_interval

_SCHEMES = {
    "width": "{} of equal width",
    "mass": "{} of equal mass",
    "sweep": "{} of equal mass, swept",
    "kernel": "kernel",
}
KEYS = tuple(metric.key for metric in SUITE)


def run_suite(evaluation: Evaluation, caption: str) -> str:
    """Every metric of one evaluation; nothing where the file holds none but the main figures."""
    metrics = [m for m in SUITE if m.key in evaluation.raw]
    if not _whole([evaluation]):
        return ""
    rows = [
        [
            explained(_title(metric), metric.meaning),
            estimate(
                evaluation.values.get(metric.key),
                partial(shown_metric, metric),
                evaluation.intervals.get(metric.key),
                no_interval(evaluation, metric.key)
                if metric.key in evaluation.values
                else "not defined: all predictions are right, or all wrong",
            ),
            _bound(metric, [evaluation]),
            td(_bins(evaluation.signatures.get(metric.key))),
        ]
        for metric in metrics
    ]
    head = [th("Metric"), th("Value", "95 % interval", numeric=True), _OFF, th("Bins")]
    return table(caption, head, rows, quiet=not caption)


_OFF = th("Off by at most", "read from a histogram", numeric=True)


def study_suite(study: Study, comparison: Comparison, evaluation: str) -> str:
    """A column a combination of settings: the mean over its seeds ± half width of the interval."""
    groups = [
        (group, row)
        for group in comparison.groups
        if (row := summary_of(study, group, evaluation)) is not None
    ]
    scored = [arm.scored[evaluation] for arm in study.arms if evaluation in arm.scored]
    if not groups or not _whole(scored):
        return ""
    rows = []
    for metric in SUITE:
        if not any(metric.key in row.mean for _, row in groups):
            continue
        cells = [explained(_title(metric), metric.meaning)]
        for _, row in groups:
            value, half = row.mean.get(metric.key), row.half_width.get(metric.key)
            cells.append(
                num(
                    value,
                    "" if value is None else shown_metric(metric, value),
                    half,
                    "" if half is None else shown_metric(metric, half),
                    no_seed_interval(row.seeds),
                )
            )
        rows.append([*cells, _bound(metric, scored)])
    head = [
        th("Metric"),
        *(th(group.short, group.series, numeric=True) for group, _ in groups),
        _OFF,
    ]
    caption = f"{evaluation}: mean over seeds ± half width of the 95 % interval"
    return table(caption, head, rows) + mixed_note(scored, KEYS)


def _title(metric: Metric) -> str:
    """The name of a metric; that of a part of the Brier score, which stands above it, in short."""
    is_part = metric.key.startswith("brier_")
    return f"· {metric.name.removeprefix('Brier ')}" if is_part else metric.name


def _whole(evaluations: Sequence[Evaluation]) -> bool:
    """Whether more is known than the main figures, which have a table of their own."""
    return any("smooth_calibration_error" in e.values for e in evaluations)


def _bound(metric: Metric, evaluations: Sequence[Evaluation]) -> str:
    """By how much a figure may be off, the largest of all; `exact` where it has no bound."""
    found = [e.bounds[metric.key] for e in evaluations if metric.key in e.bounds]
    if not found:
        return '<td class="num" title="read from sums, exact but for rounding">exact</td>'
    text = number(max(found), 5)
    return num(max(found), "< 0.00001" if float(text) == 0 else text)


def _bins(signature: str | None) -> str:
    if signature is None:
        return "–"
    keys = parse(signature)
    return _SCHEMES.get(keys.get("scheme", ""), "–").format(keys.get("bins", ""))
