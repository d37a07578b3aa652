"""Tables of all calibration metrics: one per row, with its interval and its error bound."""

from collections.abc import Sequence

from calibtrain.figures.grouping import Comparison, summary_of
from calibtrain.figures.signatures import parse
from calibtrain.metrics.quantities import NOTHING, QUANTITIES, SUITE, Quantity, number
from calibtrain.report.blocks import (
    Block,
    Cell,
    Head,
    Table,
    figure,
    mean,
    no_interval,
    num,
    titled,
)
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.results import StudyResults

_SCHEMES = {
    "width": "{} of equal width",
    "mass": "{} of equal mass",
    "sweep": "{} of equal mass, swept",
    "kernel": "kernel",
}
_METRICS = tuple(QUANTITIES[key] for key in SUITE)
_OFF = Head("Off by at most", "read from a histogram", numeric=True)


def run_suite(evaluation: EvaluationRecord, caption: str) -> list[Block]:
    """Returns every metric of one evaluation; nothing if its file has only the main figures."""
    if not _whole([evaluation]):
        return []
    undefined = "not defined: all predictions are right, or all wrong"
    rows = []
    for metric in _METRICS:
        if metric.key not in evaluation:
            continue
        known = metric.key in evaluation.numbers
        why = no_interval(evaluation, metric.key) if known else undefined
        bins = Cell(_bins(evaluation.signature(metric.key)))
        rows.append(
            [_title(metric), figure(evaluation, metric, why), _off(metric, [evaluation]), bins]
        )
    heads = [Head("Metric"), Head("Value", "95 % interval", numeric=True), _OFF, Head("Bins")]
    return [Table(caption, heads, rows, quiet=not caption, explains=True)]


def study_suite(study: StudyResults, comparison: Comparison, evaluation: str) -> list[Block]:
    """Returns one column per combination of settings: mean over seeds ± half width of interval."""
    groups = [
        (group, row)
        for group in comparison.groups
        if (row := summary_of(study, group, evaluation)) is not None
    ]
    scored = [arm.scored[evaluation] for arm in study.arms if evaluation in arm.scored]
    if not groups or not _whole(scored):
        return []
    rows = [
        [
            _title(metric),
            *(
                mean(metric, row.mean.get(metric.key), row.half_width.get(metric.key), row.seeds)
                for _, row in groups
            ),
            _off(metric, scored),
        ]
        for metric in _METRICS
        if any(metric.key in row.mean for _, row in groups)
    ]
    columns = [Head(group.short, group.series, numeric=True) for group, _ in groups]
    caption = f"{evaluation}: mean over seeds ± half width of the 95 % interval"
    return [Table(caption, [Head("Metric"), *columns, _OFF], rows, explains=True)]


def _title(metric: Quantity) -> Cell:
    """Returns the cell with a metric's name, which is short for parts of the Brier score."""
    is_part = metric.key.startswith("brier_")
    name = f"· {metric.name.removeprefix('Brier ')}" if is_part else metric.name
    return titled(name, metric.meaning, "explained")


def _whole(evaluations: Sequence[EvaluationRecord]) -> bool:
    """Returns whether there are metrics beside the main figures, which have their own table."""
    return any("smooth_calibration_error" in e.numbers for e in evaluations)


def _off(metric: Quantity, evaluations: Sequence[EvaluationRecord]) -> Cell:
    """Returns the largest error bound of a figure over evaluations; `exact` where it has none."""
    bounds = [(e.bounds or {}).get(metric.key) for e in evaluations]
    found = [bound for bound in bounds if bound is not None]
    if not found:
        return Cell("exact", "num", title="read from sums, exact but for rounding")
    text = number(max(found), 5)
    return num(max(found), lambda _: "< 0.00001" if float(text) == 0 else text)


def _bins(signature: str | None) -> str:
    if signature is None:
        return NOTHING
    keys = parse(signature)
    return _SCHEMES.get(keys.get("scheme", ""), NOTHING).format(keys.get("bins", ""))
