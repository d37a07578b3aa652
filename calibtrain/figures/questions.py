"""Figures of answers to questions (`calibtrain qa`): reliability of candidates, gaps of groups."""

import plotly.graph_objects as go

from calibtrain.figures.calibration import reliability_panel
from calibtrain.figures.display import headed, plain, plural, shown, shown_ends
from calibtrain.figures.named_points import Row, ends_of, marked_panel, reached
from calibtrain.figures.panels import Figure, Key, Panel, around_zero, gap_axis, sides, told
from calibtrain.figures.style import SOFT
from calibtrain.metrics.quantities import number
from calibtrain.runs.instrument_records import GapRow, QuestionsRecord

_TOP, _EVERY = "top candidate", "every candidate"
_COLOURS = {_TOP: "var(--cat-0)", _EVERY: "var(--cat-1)"}
_CALIBRATED = "if calibrated"
_ALL = "<b>all</b>"  # no group is called so, as their names are plain


def questions_figures(record: QuestionsRecord) -> list[Figure]:
    """Returns the reliability of candidates, and the gaps of groups where there are groups."""
    scored = {"own": "their own tokens", "all": "all tokenisations of their bytes"}
    asked = f"{plural(record.questions, 'question')}, scored by {scored[record.scored]}"
    kinds = {_TOP: record.top_candidate, _EVERY: record.every_candidate}
    panels = []
    for name, found in kinds.items():
        title = f"{name[0].upper()}{name[1:]}: ECE {shown('ece', found.ece)}"
        title += shown_ends("ece", found.interval("ece"))
        panels.append(reliability_panel(title, [found], _COLOURS[name], name))
    tempered = "" if record.temperature == 1 else f", temperature {record.temperature:.3g}"
    about = f"{asked}, step {record.step:,}{headed(record.head)}{tempered}."
    figures = [
        Figure(
            anchor="questions",
            title=f"Confidence in answers: {record.set}",
            caption="Accuracy against the confidence of a candidate, its share of the probability "
            "of its question's candidates. By the top candidate, a question is one event; by every "
            "candidate, each of them is one. They are different events, and their ECEs do not "
            f"compare. Intervals are over questions; {about}",
            panels=tuple(panels),
        )
    ]
    if len(record.gaps) > 1:
        figures.append(
            Figure(
                anchor="question-groups",
                title=f"Groups of questions: {record.set}",
                caption="Signed gap of the top candidate, and its mean confidence when it is right "
                "less that when it is wrong; open marks are what the same confidences would show, "
                "were each right as often as it says. 95 % intervals over questions; "
                f"{about}",
                panels=group_panels(record),
                keys=(Key(_TOP, _COLOURS[_TOP]), Key(_CALIBRATED, SOFT)),
            )
        )
    return figures


def group_panels(record: QuestionsRecord) -> tuple[Panel, Panel]:
    """Returns the signed gaps of all questions and of each group, and the gaps by outcome."""
    top = record.top_candidate
    rows: list[Row] = [(_ALL, top.signed_gap, ends_of(top.interval("signed_gap")))]
    rows += [
        (plain(each.name), value, ends_of(each.interval("signed_gap")))
        for each in top.groups or ()
        if (value := each.numbers.get("signed_gap")) is not None
    ]
    signed = marked_panel(
        "Signed gap",
        rows,
        _TOP,
        _COLOURS[_TOP],
        lambda value: shown("signed_gap", value),
        y=gap_axis(reached(rows)),
        annotations=sides(),
    )
    found = [each for each in record.gaps if each.gap is not None]
    usual = [(_label(each), each.calibrated) for each in found if each.calibrated is not None]
    marks = go.Scatter(
        **told(
            (name, value, f"{name}<br>{_CALIBRATED} {number(value, 3, signed=True)}")
            for name, value in usual
        ),
        mode="markers",
        marker={"color": SOFT, "size": 9, "symbol": "circle-open"},
        legendgroup=_CALIBRATED,
    )
    by_outcome: list[Row] = [
        (_label(each), each.gap, ends_of(each)) for each in found if each.gap is not None
    ]
    values = [*reached(by_outcome), *(value for _, value in usual)]
    apart = marked_panel(
        "Confidence when right less when wrong",
        by_outcome,
        _TOP,
        _COLOURS[_TOP],
        lambda value: number(value, 3, signed=True),
        y={"title": "difference (probability)", "range": around_zero(values)},
        extra=[marks],
    )
    return signed, apart


def _label(row: GapRow) -> str:
    return _ALL if row.label is None else plain(row.label)
