"""Strata of an evaluation's events: their names, and the worst calibrated group."""

from collections.abc import Sequence
from dataclasses import dataclass

from calibtrain.figures.display import shown, shown_ends
from calibtrain.runs.records import EvaluationRecord, StratumRow


@dataclass(frozen=True)
class Stratum:
    """One way to divide the events into groups.

    Attributes:
        name: name of its table in an evaluation's file.
        anchor: anchor of its figure.
        title: title of its figure.
        axis: title of the groups' axis, with their unit.
        group: word for one of its groups.
        caption: how to read its figure.
        ordered: whether its groups have an order, so that a line may join them.
    """

    name: str
    anchor: str
    title: str
    axis: str
    group: str
    caption: str
    ordered: bool = True


COMPARED = ("ece", "signed_gap")
"""The figures that are drawn for each group."""

CUTS = (
    Stratum(
        "frequency_deciles",
        "frequency",
        "Calibration by frequency of the target token",
        "frequency decile (1 = commonest)",
        "frequency decile",
        "Target tokens are split into ten groups by how common they are in the training text, from "
        "the commonest (1) to the rarest (10): an ECE that climbs to the right, or a gap that "
        "moves away from zero, says that rarer tokens are worse calibrated.",
    ),
    Stratum(
        "positions",
        "position",
        "Calibration by position in the document",
        "text of the document before the token",
        "position",
        "Tokens are split by how many bytes of their document stand before them, which is the same "
        "for every vocabulary: an ECE that falls to the right says that calibration needs context.",
    ),
    Stratum(
        "entropy_bands",
        "entropy",
        "Calibration by the model’s own uncertainty",
        "entropy of the prediction",
        "entropy band",
        "Tokens are split by the entropy, in bits, of the model’s own prediction: a gap of "
        "opposite signs at the two ends cancels in the signed gap of all tokens.",
    ),
    Stratum(
        "groups",
        "groups",
        "Calibration by group of documents",
        "group of documents",
        "group",
        "Tokens are split by the group that their document belongs to; every group is here, so "
        "that what is well calibrated on the whole cannot hide one that is not.",
        ordered=False,
    ),
)


def labels_of(evaluations: Sequence[EvaluationRecord], stratum: Stratum) -> list[str]:
    """Returns the groups of all evaluations, in their order."""
    return list(
        dict.fromkeys(row.name for e in evaluations for row in e.strata.get(stratum.name, ()))
    )


def row_of(evaluation: EvaluationRecord, stratum: Stratum, label: str) -> StratumRow | None:
    """Returns a group's row in an evaluation, or None."""
    rows = evaluation.strata.get(stratum.name, ())
    return next((row for row in rows if row.name == label), None)


def worst_group(evaluations: Sequence[EvaluationRecord], stratum: Stratum) -> str | None:
    """Returns the group with the largest mean ECE that is clearly above that of all tokens.

    In every evaluation, the lower end of the group's interval must be above the ECE of all tokens.
    """
    found: dict[str, float] = {}
    for label in labels_of(evaluations, stratum):
        rows = [row_of(e, stratum, label) for e in evaluations]
        if all(
            row is not None and (ends := row.interval("ece")) is not None and ends.lower > whole
            for row, whole in zip(rows, (e.ece for e in evaluations), strict=True)
        ):
            found[label] = sum(row.numbers["ece"] for row in rows if row) / len(rows)
    return max(found, key=lambda label: found[label], default=None)


def worst_line(evaluations: Sequence[EvaluationRecord], stratum: Stratum, where: str = "") -> str:
    """Returns a sentence that names the worst calibrated group and begins with `where`."""
    begin = f"{where}: the" if where else "The"
    whole = shown("ece", sum(e.ece for e in evaluations) / len(evaluations))
    worst = worst_group(evaluations, stratum)
    if worst is None:
        known = any(row.intervals for e in evaluations for row in e.strata.get(stratum.name, ()))
        if not known:
            return f"{begin} {stratum.group}s have no intervals, so that none can be called worst."
        return f"{begin} interval of no {stratum.group} lies above the ECE of all tokens ({whole})."
    rows = [row for e in evaluations if (row := row_of(e, stratum, worst))]
    ece = shown("ece", sum(row.numbers["ece"] for row in rows) / len(rows))
    text = f"{begin} worst calibrated {stratum.group} is {worst}: ECE {ece}"
    if len(rows) == 1:
        return f"{text}{shown_ends('ece', rows[0].interval('ece'))}, against {whole} of all tokens."
    return f"{text} in the mean over seeds, against {whole} of all tokens."
