"""Strata of an evaluation's events: their names, and the group that is clearly worst."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from calibtrain.figures.display import shown
from calibtrain.runs.evaluation_records import EvaluationRecord, FrequencyMassRow, StratumRow

COMPARED = ("ece", "signed_gap")
"""The figures that are drawn for groups, unless their stratum has others."""
Row = StratumRow | FrequencyMassRow


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
        by_outcome: whether the groups are known only afterwards, so that a calibrated model shows
            gaps too: they are drawn beside those that a perfect model would show, or not at all.
        event: the event that it divides.
        keys: the figures that are drawn for each group.
        beside: by figure, the one that it is drawn beside, as hollow diamonds.
    """

    name: str
    anchor: str
    title: str
    axis: str
    group: str
    caption: str
    ordered: bool = True
    by_outcome: bool = False
    event: str = "token"
    keys: tuple[str, ...] = COMPARED
    beside: Mapping[str, str] = field(default_factory=dict)


_DECILE = "frequency decile (1 = commonest)"
_SELECTED = (
    " Such groups are known only afterwards, so that a calibrated model shows gaps too: hollow "
    "diamonds are what a perfect model with these very probabilities would show, and only the "
    "distance from them says something about this one."
)

CUTS = (
    Stratum(
        "frequency_mass",
        "frequency-mass",
        "Mass calibration: how much probability common and rare tokens get",
        _DECILE,
        "decile",
        "Each decile of the vocabulary holds about a tenth of the training tokens. The gap is the "
        "mean probability that the model gives to all tokens of a decile together, less the share "
        "of the text’s tokens that lie in it: a calibrated model has 0 everywhere. Hollow diamonds "
        "are the observed shares.",
        keys=("gap", "predicted_share"),
        beside={"predicted_share": "observed_share"},
    ),
    Stratum(
        "predicted_frequency",
        "predicted-frequency",
        "Calibration by frequency of the predicted token",
        _DECILE,
        "frequency decile",
        "Predictions are split by how common the predicted token is in the training text, from the "
        "commonest (1) to the rarest (10): a gap that moves away from zero to the right says that "
        "predictions of rare tokens are worse calibrated.",
    ),
    Stratum(
        "frequency_deciles",
        "frequency",
        "Calibration by frequency of the target token",
        _DECILE,
        "frequency decile",
        "Predictions are split by how common the token is that really came." + _SELECTED,
        by_outcome=True,
        keys=("signed_gap", "excess_gap"),
        beside={"signed_gap": "reference_gap"},
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
        "confidence_bands",
        "confidence-bands",
        "Calibration by confidence",
        "confidence of the prediction",
        "confidence band",
        "Predictions are split by their own confidence: a gap of opposite signs at the two ends "
        "cancels in the signed gap of all of them.",
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
    Stratum(
        "word_pieces",
        "word-pieces",
        "Words that the tokenizer keeps whole, and words that it splits",
        "predicted word",
        "kind",
        "Word events are split by whether the predicted word is one token of the tokenizer or "
        "several.",
        ordered=False,
        event="word",
    ),
    Stratum(
        "word_frequency",
        "word-frequency",
        "Calibration by frequency of the predicted word",
        "frequency decile of the word (1 = commonest)",
        "frequency decile",
        "Word events are split by how common the predicted word is in the training text: a gap "
        "that moves away from zero to the right says that rare words are worse calibrated.",
        event="word",
    ),
)


def drawn_at(anchor: str) -> Stratum | None:
    """Returns the stratum whose figure has an anchor; None for the anchor of another figure."""
    return next((each for each in CUTS if each.anchor == anchor), None)


def rows_in(evaluation: EvaluationRecord, stratum: Stratum) -> Sequence[Row]:
    """Returns the rows of a stratum in an evaluation; none if its file has none."""
    return getattr(evaluation, stratum.name) or ()


def name_of(row: Row) -> str:
    """Returns the name of a row's group."""
    return row.label or str(row.decile)


def has_reference(evaluations: Iterable[EvaluationRecord], stratum: Stratum) -> bool:
    """Returns whether the groups know what a perfect model would show."""
    rows = (row for e in evaluations for row in rows_in(e, stratum))
    return any("reference_gap" in row.numbers for row in rows)


def labels_of(evaluations: Sequence[EvaluationRecord], stratum: Stratum) -> list[str]:
    """Returns the groups of all evaluations, in their order."""
    return list(dict.fromkeys(name_of(row) for e in evaluations for row in rows_in(e, stratum)))


def row_of(evaluation: EvaluationRecord, stratum: Stratum, label: str) -> Row | None:
    """Returns a group's row in an evaluation, or None."""
    return next((row for row in rows_in(evaluation, stratum) if name_of(row) == label), None)


def worst_line(evaluations: Sequence[EvaluationRecord], stratum: Stratum, where: str = "") -> str:
    """Returns a sentence on the groups whose ECE is above that of all tokens, beginning `where`.

    A group is above if the whole of its interval over documents is, in every evaluation. An
    interval over seeds says nothing here: noise raises the ECE of few events in every seed alike.
    """
    begin = f"{where}: the" if where else "The"
    whole = sum(e.ece for e in evaluations) / len(evaluations)
    ends = {label: _ends(evaluations, stratum, label) for label in labels_of(evaluations, stratum)}
    known = {label: found for label, found in ends.items() if found is not None}
    said = shown("ece", whole)
    if not known:
        return f"{begin} {stratum.group}s have no intervals, so that none can be called worst."
    above = {label: found for label, found in known.items() if found[1] > whole}
    if not above:
        return f"{begin} interval of no {stratum.group} lies above the ECE of all events ({said})."
    worst = max(above, key=lambda label: above[label][0])
    ece, low, high = (shown("ece", value) for value in above[worst])
    others = (
        f" The intervals of {len(above)} of {len(ends)} {stratum.group}s lie above it."
        if len(above) > 1
        else ""
    )
    seeds = " in every seed" if len(evaluations) > 1 else ""
    return (
        f"{begin} largest ECE whose whole interval over documents lies above that of all events "
        f"({said}){seeds} is {ece} [{low}, {high}], of {stratum.group} {worst}.{others}"
    )


def _ends(
    evaluations: Sequence[EvaluationRecord], stratum: Stratum, label: str
) -> tuple[float, float, float] | None:
    """Returns the mean ECE of a group, and the outermost ends of its intervals over documents.

    None where one of the evaluations has none.
    """
    rows = [row_of(e, stratum, label) for e in evaluations]
    found = [(row.numbers["ece"], row.interval("ece")) for row in rows if row and row.tokens]
    intervals = [interval for _, interval in found if interval is not None]
    if not found or len(intervals) < len(evaluations):
        return None
    mean = sum(ece for ece, _ in found) / len(found)
    return mean, min(each.lower for each in intervals), max(each.upper for each in intervals)
