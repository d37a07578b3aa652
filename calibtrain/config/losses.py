"""The terms of a training loss: every kind, its options and their defaults.

Formulas and sources stand with the functions (`calibtrain.losses`).
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from calibtrain.config.section import Section

Positive = Annotated[float, Field(gt=0.0, le=1e6)]
Strength = Annotated[float, Field(ge=0.0, le=1e6)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Tokens = Annotated[int, Field(ge=2, le=10**9)]
Bins = Annotated[int, Field(ge=2, le=1000)]
Steps = Annotated[int, Field(ge=0, le=2**31 - 1)]


class LossTerm(Section):
    """What every term has: a weight, and when it begins to count."""

    weight: Strength = 1.0
    """What the term is multiplied by in the sum."""
    from_step: Steps = 0
    """The first step (counted from 0) at which it counts."""
    ramp_steps: Steps = 0
    """Steps over which its weight then rises to the full one, linearly; 0: at once."""


class BatchTerm(LossTerm):
    """What every loss that couples tokens has besides."""

    tokens: Tokens | None = 1024
    """About how many tokens of a batch it is computed over, of a few rows of it; null means all."""


class CrossEntropyTerm(LossTerm):
    """-log p of the target."""

    kind: Literal["cross_entropy"] = "cross_entropy"


class LabelSmoothingTerm(LossTerm):
    """Cross entropy with a target smoothed over the vocabulary."""

    kind: Literal["label_smoothing"]
    smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Share of the target spread evenly over all entries."""


class FocalTerm(LossTerm):
    """-(1 - p)^gamma log p of the target."""

    kind: Literal["focal"]
    gamma: Annotated[float, Field(ge=0.0, le=100.0)] = 3.0
    """Power; 0 is cross entropy."""


class SampleDependentFocalTerm(LossTerm):
    """FLSD-53: focal with a larger power where the target is improbable."""

    kind: Literal["flsd_53"]
    gamma_below: Annotated[float, Field(ge=0.0, le=100.0)] = 5.0
    """Power where the target's probability is below the threshold."""
    gamma_above: Annotated[float, Field(ge=0.0, le=100.0)] = 3.0
    """Power elsewhere."""
    threshold: Share = 0.2
    """Of the target's probability."""


class DualFocalTerm(LossTerm):
    """Focal with the next less probable entry's probability added to the base."""

    kind: Literal["dual_focal"]
    gamma: Annotated[float, Field(ge=0.0, le=100.0)] = 5.0
    """Power."""


class EntropyPenaltyTerm(LossTerm):
    """Cross entropy minus beta times the entropy of the prediction."""

    kind: Literal["entropy_penalty"]
    beta: Strength = 0.1
    """What a nat of entropy is worth."""


class BrierTerm(LossTerm):
    """Squared distance between the prediction and the target, over the vocabulary."""

    kind: Literal["brier"]


class MarginSmoothingTerm(LossTerm):
    """Cross entropy plus a penalty on logits further than a margin below the largest (MbLS)."""

    kind: Literal["margin_smoothing"]
    strength: Strength = 0.1
    """Of the penalty."""
    margin: Strength = 10.0
    """In units of logits."""


class ZLossTerm(LossTerm):
    """Cross entropy plus the squared log of the softmax's normaliser."""

    kind: Literal["z_loss"]
    coefficient: Strength = 1e-4
    """Of the square."""


class SelectiveSmoothingTerm(LossTerm):
    """Cross entropy where the model is right, distance to the uniform distribution where not."""

    kind: Literal["selective_smoothing"]
    alpha: Share = 0.5
    """Share of the second part."""
    balanced: bool = False
    """Average right and wrong tokens apart, as the authors' code does. Couples all tokens."""


class PosCalTerm(LossTerm):
    """Cross entropy plus the distance of confidences from the accuracies seen a while ago."""

    kind: Literal["poscal"]
    strength: Strength = 1.0
    """Of the distance."""
    bins: Bins = 10
    """Of the confidence."""
    refreshes_per_epoch: Positive = 5.0
    """How often the accuracies are taken anew."""


class MMCETerm(BatchTerm):
    """Calibration error in a reproducing-kernel Hilbert space; beside cross entropy."""

    kind: Literal["mmce"]
    weight: Strength = 2.0
    """What the term is multiplied by in the sum."""
    weighted: bool = False
    """Average right and wrong tokens apart."""
    width: Positive = 0.4
    """Of the kernel."""
    tokens: Annotated[int, Field(ge=2, le=65_536)] | None = 1024
    """About how many tokens of a batch it is computed over; pairs of them are compared."""


class SoftBinsTerm(BatchTerm):
    """What errors over soft bins have in common."""

    bins: Bins = 15
    """Bins of the confidence."""
    decay: Annotated[float, Field(gt=1.0, le=1e6)] = 2.0
    """At a bin's centre, its membership over the next bin's."""


class SoftBinnedECETerm(SoftBinsTerm):
    """ECE over soft bins; beside cross entropy."""

    kind: Literal["soft_binned_ece"]


class DECETerm(SoftBinsTerm):
    """ECE over soft bins with a differentiable accuracy; beside cross entropy."""

    kind: Literal["dece"]
    rank_temperature: Positive = 0.1
    """Softness of the target's rank, in units of logits."""


class DCATerm(BatchTerm):
    """|mean accuracy - mean confidence|; beside cross entropy."""

    kind: Literal["dca"]


class MDCATerm(BatchTerm):
    """Distance of mean probabilities from frequencies, by entry; beside cross entropy."""

    kind: Literal["mdca"]


class AvUCTerm(BatchTerm):
    """Accuracy versus uncertainty; beside cross entropy."""

    kind: Literal["avuc"]
    threshold: Share = 0.5
    """Entropy over its largest value, above which a prediction is uncertain."""
    temperature: Positive = 0.1
    """Softness of the threshold."""


AnyTerm = Annotated[
    CrossEntropyTerm
    | LabelSmoothingTerm
    | FocalTerm
    | SampleDependentFocalTerm
    | DualFocalTerm
    | EntropyPenaltyTerm
    | BrierTerm
    | MarginSmoothingTerm
    | ZLossTerm
    | SelectiveSmoothingTerm
    | PosCalTerm
    | MMCETerm
    | SoftBinnedECETerm
    | DECETerm
    | DCATerm
    | MDCATerm
    | AvUCTerm,
    Field(discriminator="kind"),
]

CROSS_ENTROPY: tuple[Any, ...] = (CrossEntropyTerm(),)
