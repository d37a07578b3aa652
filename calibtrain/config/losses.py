"""The terms of a training loss: every kind, its options and their defaults.

Formulas and references are in the docstrings of `calibtrain.losses`.
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
    """Options of every term: its weight, and when it begins to count."""

    weight: Strength = 1.0
    """Weight of the term in the sum."""
    from_step: Steps = 0
    """The first step, counted from 0, at which the term counts."""
    ramp_steps: Steps = 0
    """Steps over which the weight then rises linearly to its full value; 0 means at once."""


class BatchTerm(LossTerm):
    """Options of every term that couples tokens."""

    tokens: Tokens | None = 1024
    """Approximate number of tokens it is computed over, from a few rows of the batch; null means
    all."""


class CrossEntropyTerm(LossTerm):
    """-log p of the target."""

    kind: Literal["cross_entropy"] = "cross_entropy"


class LabelSmoothingTerm(LossTerm):
    """Cross entropy to a target that is smoothed over the vocabulary."""

    kind: Literal["label_smoothing"]
    smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Share of the target's probability that is spread evenly over all entries."""


class FocalTerm(LossTerm):
    """-(1 - p)^gamma log p of the target."""

    kind: Literal["focal"]
    gamma: Annotated[float, Field(ge=0.0, le=100.0)] = 3.0
    """Exponent; 0 gives cross entropy."""


class SampleDependentFocalTerm(LossTerm):
    """FLSD-53: focal loss with a larger exponent where the target is improbable."""

    kind: Literal["flsd_53"]
    gamma_below: Annotated[float, Field(ge=0.0, le=100.0)] = 5.0
    """Exponent where the target's probability is below the threshold."""
    gamma_above: Annotated[float, Field(ge=0.0, le=100.0)] = 3.0
    """Exponent elsewhere."""
    threshold: Share = 0.2
    """Threshold of the target's probability."""


class DualFocalTerm(LossTerm):
    """Focal loss whose base also adds the probability of the next less probable entry."""

    kind: Literal["dual_focal"]
    gamma: Annotated[float, Field(ge=0.0, le=100.0)] = 5.0
    """Exponent."""


class EntropyPenaltyTerm(LossTerm):
    """Cross entropy minus beta times the entropy of the prediction."""

    kind: Literal["entropy_penalty"]
    beta: Strength = 0.1
    """Factor of the entropy, in nats."""


class BrierTerm(LossTerm):
    """Squared distance between predicted probabilities and the one-hot target."""

    kind: Literal["brier"]


class MarginSmoothingTerm(LossTerm):
    """Cross entropy plus a penalty on logits more than a margin below the largest (MbLS)."""

    kind: Literal["margin_smoothing"]
    strength: Strength = 0.1
    """Factor of the penalty."""
    margin: Strength = 10.0
    """Margin, in units of logits."""


class ZLossTerm(LossTerm):
    """Cross entropy plus the squared log of the softmax's normaliser."""

    kind: Literal["z_loss"]
    coefficient: Strength = 1e-4
    """Factor of the square."""


class SelectiveSmoothingTerm(LossTerm):
    """Cross entropy where the model is right, distance to the uniform distribution elsewhere."""

    kind: Literal["selective_smoothing"]
    alpha: Share = 0.5
    """Share of the distance to the uniform distribution."""
    balanced: bool = False
    """Average right and wrong tokens separately, as the authors' code does; couples all tokens."""


class PosCalTerm(LossTerm):
    """Cross entropy plus the distance of confidences from accuracies measured earlier."""

    kind: Literal["poscal"]
    strength: Strength = 1.0
    """Factor of the distance."""
    bins: Bins = 10
    """Bins of the confidence."""
    refreshes_per_epoch: Positive = 5.0
    """How often per epoch the accuracies are measured."""


class MMCETerm(BatchTerm):
    """Calibration error in a reproducing-kernel Hilbert space; used beside cross entropy."""

    kind: Literal["mmce"]
    weight: Strength = 2.0
    """Weight of the term in the sum."""
    weighted: bool = False
    """Average right and wrong tokens separately."""
    width: Positive = 0.4
    """Width of the kernel."""
    tokens: Annotated[int, Field(ge=2, le=65_536)] | None = 1024
    """Approximate number of tokens it is computed over; their pairs are compared."""


class SoftBinsTerm(BatchTerm):
    """Options of calibration errors over soft bins."""

    bins: Bins = 15
    """Bins of the confidence."""
    decay: Annotated[float, Field(gt=1.0, le=1e6)] = 2.0
    """Membership of a confidence at a bin's centre in that bin, over that in the next bin."""


class SoftBinnedECETerm(SoftBinsTerm):
    """ECE over soft bins; used beside cross entropy."""

    kind: Literal["soft_binned_ece"]


class DECETerm(SoftBinsTerm):
    """ECE over soft bins with a differentiable accuracy; used beside cross entropy."""

    kind: Literal["dece"]
    rank_temperature: Positive = 0.1
    """Softness of the target's rank, in units of logits."""


class DCATerm(BatchTerm):
    """|mean accuracy - mean confidence|; used beside cross entropy."""

    kind: Literal["dca"]


class MDCATerm(BatchTerm):
    """Distance of mean probabilities from frequencies, per entry; used beside cross entropy."""

    kind: Literal["mdca"]


class AvUCTerm(BatchTerm):
    """Accuracy versus uncertainty; used beside cross entropy."""

    kind: Literal["avuc"]
    threshold: Share = 0.5
    """Share of the largest entropy above which a prediction counts as uncertain."""
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
