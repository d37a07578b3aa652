"""The one table of every figure: name, unit, decimals, which way is better, what it says.

Tables, figures and the terminal take their columns from here. Importing it loads neither JAX nor
NumPy.

Example:
    >>> QUANTITIES["nll"].unit_of("byte")
    'nats/byte'
    >>> QUANTITIES["signed_gap"].show(0.01234)
    '+0.0123'
    >>> QUANTITIES["ece"].better
    'low'
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Better = Literal["low", "high", "zero"]
NOTHING = "–"
"""Stands for a figure that does not exist."""


@dataclass(frozen=True)
class Quantity:
    """One figure of an evaluation.

    Attributes:
        key: of results and of files.
        name: in words, as a table's title.
        unit: `{event}` stands for what is predicted: token, byte, word.
        better: whether low or high values are better, or those near zero; None where neither is.
        meaning: a sentence on what it says.
        decimals: how many are worth showing on a page.
        signed: whether the sign is always shown.
        column: heading of a narrow column, unit included where it needs one; default: the name.
    """

    key: str
    name: str
    unit: str
    better: Better | None
    meaning: str
    decimals: int = 4
    signed: bool = False
    column: str = ""

    def unit_of(self, event: str = "token") -> str:
        """The unit for an event space, as `nats/byte`; figures per byte keep theirs."""
        return self.unit.format(event=event.rpartition("-")[2])  # of canonical-byte, the byte

    def unit_in_words(self, event: str = "token") -> str:
        """The unit in a sentence or on an axis, as `nats per byte`."""
        return self.unit_of(event).replace("/", " per ").replace("conf.", "confidence")

    def heading(self, event: str = "token") -> str:
        """Heading of a narrow column."""
        return (self.column or self.name).format(event=event.rpartition("-")[2])

    def show(self, value: float | None, decimals: int | None = None) -> str:
        """A value rounded for reading; `decimals` other than the usual ones where it is given."""
        if value is None:
            return NOTHING
        return number(value, self.decimals if decimals is None else decimals, signed=self.signed)

    def show_half(self, half: float, decimals: int | None = None) -> str:
        """The half width of an interval, which has no sign."""
        return self.show(half, decimals).lstrip("+")

    def plain(self, value: float | None) -> str:
        """A value for a terminal, with four decimals or none; ASCII signs, no negative zero."""
        if value is None:
            return NOTHING
        return f"{value:{'+' if self.signed else ''}z,.{4 if self.decimals else 0}f}"

    def plain_half(self, half: float) -> str:
        """The half width of an interval for a terminal, which has no sign."""
        return self.plain(half).lstrip("+")


def number(value: float, decimals: int, *, signed: bool = False) -> str:
    """Fixed-point with thousands separators and a real minus sign; zero has no sign.

    Example:
        >>> number(-1234.5678, 2)
        '−1,234.57'
    """
    if not math.isfinite(value):
        return "not finite"
    text = f"{value:{'+' if signed else ''},.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


_ALL = (
    Quantity(
        "bits_per_byte",
        "Bits per byte",
        "bits/byte",
        "low",
        "Negative log likelihood per byte of text: the scale on which vocabularies compare.",
        decimals=3,
        column="bits/byte",
    ),
    Quantity(
        "ece",
        "ECE",
        "0 to 1",
        "low",
        "Expected calibration error: mean distance of accuracy from confidence over bins of equal "
        "width, weighed by what they hold.",
    ),
    Quantity(
        "signed_gap",
        "Signed gap",
        "conf. − accuracy",
        "zero",
        "Mean confidence minus accuracy: positive is over-confident.",
        signed=True,
        column="signed gap",
    ),
    Quantity(
        "accuracy",
        "Accuracy",
        "0 to 1",
        "high",
        "Share of events whose likeliest prediction is right.",
        column="accuracy",
    ),
    Quantity(
        "mean_confidence",
        "Confidence",
        "0 to 1",
        None,
        "Mean probability that the model gives to its likeliest prediction.",
        column="confidence",
    ),
    Quantity(
        "entropy_bits_per_byte",
        "Entropy rate",
        "bits/byte",
        None,
        "Mean entropy of the model’s own predictions, per byte of text.",
        decimals=3,
        column="entropy, bits/byte",
    ),
    Quantity(
        "entropy_rate",
        "Entropy rate",
        "nats/{event}",
        None,
        "Mean entropy of the model’s own predictions, per event.",
        decimals=3,
        column="entropy, nats/{event}",
    ),
    Quantity(
        "nll",
        "NLL",
        "nats/{event}",
        "low",
        "Mean negative log likelihood, in nats per event.",
        decimals=3,
        column="nll, nats/{event}",
    ),
    Quantity(
        "ece_mass",
        "ECE (equal mass)",
        "0 to 1",
        "low",
        "ECE over bins that each hold the same weight of predictions.",
    ),
    Quantity(
        "debiased_calibration_error",
        "Debiased calibration error",
        "0 to 1",
        "low",
        "Root of the mean squared distance of accuracy from confidence, less what noise adds.",
    ),
    Quantity(
        "sweep_calibration_error",
        "Sweep calibration error",
        "0 to 1",
        "low",
        "ECE over as many bins of equal mass as keep accuracy rising with confidence.",
    ),
    Quantity(
        "smooth_calibration_error",
        "SmoothECE",
        "0 to 1",
        "low",
        "ECE smoothed by a kernel instead of bins; the error itself sets the kernel’s width.",
    ),
    Quantity(
        "maximum_calibration_error",
        "Maximum calibration error",
        "0 to 1",
        "low",
        "The largest distance in a bin of equal width, however few events the bin holds.",
    ),
    Quantity(
        "average_calibration_error",
        "Average calibration error",
        "0 to 1",
        "low",
        "The mean distance over bins of equal width, each bin counting the same.",
    ),
    Quantity(
        "kolmogorov_smirnov_error",
        "Kolmogorov–Smirnov error",
        "0 to 1",
        "low",
        "The largest cumulative sum of confidence minus accuracy as confidence rises; no bins.",
    ),
    Quantity(
        "brier",
        "Brier score",
        "0 to 1",
        "low",
        "Mean squared distance of confidence from right (1) or wrong (0); the parts that follow "
        "make it up: reliability − resolution + uncertainty + within bins.",
    ),
    Quantity(
        "brier_reliability",
        "Brier reliability",
        "0 to 1",
        "low",
        "Squared miscalibration of the bins.",
    ),
    Quantity(
        "brier_resolution",
        "Brier resolution",
        "0 to 1",
        "high",
        "How far the bins’ accuracies differ from the whole’s: more is better.",
    ),
    Quantity(
        "brier_uncertainty",
        "Brier uncertainty",
        "0 to 1",
        None,
        "Accuracy × (1 − accuracy), which does not depend on the confidences.",
    ),
    Quantity(
        "brier_within_bin",
        "Brier within bins",
        "0 to 1",
        None,
        "What differences of confidence within bins add.",
        decimals=5,
    ),
    Quantity(
        "multiclass_brier",
        "Multiclass Brier score",
        "0 to 2",
        "low",
        "Brier score of the whole predictive distribution, from 0 to 2.",
        column="Brier",
    ),
    Quantity(
        "entropy_calibration_error",
        "Entropy calibration error",
        "nats/{event}",
        "low",
        "Distance of the entropy rate from the NLL, in nats per event: 0 for a calibrated model.",
    ),
    Quantity(
        "area_under_roc",
        "AUROC",
        "0 to 1",
        "high",
        "Chance that a right prediction is more confident than a wrong one: 0.5 is guessing, more "
        "is better.",
    ),
    Quantity(
        "area_under_risk_coverage",
        "AURC",
        "0 to 1",
        "low",
        "Area under the risk–coverage curve: mean error rate when the least sure are left out.",
    ),
    Quantity(
        "full_calibration_error",
        "Full-ECE",
        "0 to 2",
        "low",
        "ECE of every probability, not of the largest alone: the distances of frequency from "
        "probability in bins that all entries of the vocabulary share, summed per token.",
    ),
    Quantity(
        "classwise_calibration_error",
        "Classwise ECE",
        "0 to 2",
        "low",
        "ECE of each vocabulary entry’s own probability, summed over the vocabulary. Noise adds to "
        "it where entries are many and tokens few.",
    ),
    Quantity(
        "predicted_share",
        "Predicted share",
        "share of tokens",
        None,
        "Mean probability of all tokens of a group of the vocabulary together.",
        column="predicted share",
    ),
    Quantity(
        "observed_share",
        "Observed share",
        "share of tokens",
        None,
        "Share of the targets that lie in a group of the vocabulary.",
        column="observed share",
    ),
    Quantity(
        "gap",
        "Gap of mass",
        "predicted − observed",
        "zero",
        "Mass calibration: predicted less observed share of a group of the vocabulary. Positive: "
        "the model gives the group too much probability.",
        signed=True,
        column="mass gap",
    ),
    Quantity(
        "reference_gap",
        "Perfect model’s gap",
        "conf. − accuracy",
        None,
        "The signed gap that a perfect model with these very probabilities would show, where "
        "events are grouped by what came.",
        signed=True,
        column="perfect model’s gap",
    ),
    Quantity(
        "excess_gap",
        "Gap less a perfect model’s",
        "difference",
        "zero",
        "The signed gap less that of a perfect model with these very probabilities.",
        signed=True,
        column="gap − perfect model’s",
    ),
    Quantity(
        "bytes",
        "Bytes",
        "bytes",
        None,
        "How much text was scored.",
        decimals=0,
        column="bytes",
    ),
    Quantity(
        "tokens",
        "Tokens",
        "{event}s",
        None,
        "How many events were scored.",
        decimals=0,
        column="{event}s",
    ),
)
QUANTITIES: Mapping[str, Quantity] = {each.key: each for each in _ALL}
"""Every figure by its key."""

MAIN = tuple(QUANTITIES)[:8]
"""The figures of a result table, in their order."""
_AFTER_NLL = ("entropy_calibration_error", "area_under_roc", "area_under_risk_coverage")
_OF_VOCABULARY = ("full_calibration_error", "classwise_calibration_error")
SUITE = ("ece", *tuple(QUANTITIES)[8:21], "nll", *_AFTER_NLL, *_OF_VOCABULARY)
"""The calibration suite: every metric of an evaluation, in the order of its table."""
COMPARED = ("nll", "bits_per_byte", "ece", "smooth_calibration_error", "signed_gap")
"""The figures by which temperature heads are compared."""
BRIER_PARTS = ("reliability", "resolution", "uncertainty", "within_bin")
"""What a Brier score is made of; the key of a part is `brier_` and its name."""


def quantity_name(key: str) -> str:
    """The name of a result key, for a list of figures: that of a metric, else the key in words."""
    return QUANTITIES[key].name if key in SUITE else key.replace("_", " ")
