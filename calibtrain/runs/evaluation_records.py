"""The JSON files of evaluations, through which they are written and read: figures and their tables.

A field without a default is in every file; one with a default is absent from files of an earlier
version, or where there is nothing to say.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar, Self

from pydantic import model_validator

from calibtrain.runs.record import (
    FileRecord,
    Flag,
    Number,
    NumberOrName,
    Record,
    Text,
    Whole,
    require_number,
)

STRATA = (
    *("frequency_deciles", "predicted_frequency", "positions", "entropy_bands"),
    *("confidence_bands", "word_pieces", "word_frequency", "groups"),
)
"""The tables that cut the events of an evaluation into groups."""
CURVES = ("reliability", "smooth_reliability", "risk_coverage")
BESIDE = ("wider", "difference", "beam_over_all", "excess")
"""Figures of the same events in another way, and how far they are apart."""
TABLES = (*CURVES, *STRATA, "frequency_mass", *BESIDE)
"""Results of an evaluation that are tables; the others are single figures, or say more of them."""
FIGURE_DETAILS = ("intervals", "bounds", "signatures")
"""Results that say more about the figures, by their names."""


class IntervalRecord(Record):
    """A 95 % interval over documents, and how it was made."""

    lower: Number
    upper: Number
    method: Text


class ReliabilityBin(Record):
    """A row of a reliability table; confidence and accuracy are null where it holds no event."""

    lower: Number
    upper: Number
    tokens: Number
    confidence: Number | None = None
    accuracy: Number | None = None


class SmoothPoint(Record):
    """A point of the kernel-smoothed reliability curve; accuracy is null where nothing is near."""

    confidence: Number
    accuracy: Number | None = None
    density: Number


class RiskPoint(Record):
    """The error rate (risk) of the share of events (coverage) of which the model is surest."""

    coverage: Number
    risk: Number


class SampleRecord(Record):
    """Which part of a split was scored; `text_hash` is equal where the very same bytes were.

    Attributes:
        documents, bytes: what was scored.
        of_documents, of_bytes: what the split holds.
        cut: whether a document was scored in part.
    """

    documents: Whole
    of_documents: Whole
    bytes: Number
    of_bytes: Number
    cut: Flag
    text_hash: Text


class StratumRow(Record):
    """One group of a stratum: its figures, and the intervals of those that have one.

    Attributes:
        reference_gap: the signed gap that a perfect model with these very probabilities would show,
            where events are cut by what came; elsewhere that is 0, and the field is absent.
        excess_gap: the signed gap less the reference.
    """

    label: Text | None = None
    decile: Whole | None = None
    tokens: Number
    reference_gap: Number | None = None
    excess_gap: Number | None = None
    intervals: dict[str, IntervalRecord | None] | None = None

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.label:
            require_number(self, "decile")
        return self

    @property
    def name(self) -> str:
        """The label of the group; before there were labels, the number of its decile."""
        return self.label or str(self.decile)

    def interval(self, key: str) -> IntervalRecord | None:
        """The interval of one of its figures, where there is one."""
        return (self.intervals or {}).get(key)


class FrequencyMassRow(Record):
    """Mass calibration of one tenth of the training text: the tokens of like frequency.

    Attributes:
        decile: 1 holds the commonest tokens, 10 the rarest.
        tokens: targets that lie in the decile.
        predicted_share: mean probability of all its tokens together.
        observed_share: share of the targets that lie in it.
        gap: predicted less observed share; of a perfect model 0 but for noise.
        intervals: that of the gap.
    """

    label: Text
    decile: Whole
    vocabulary_entries: Whole | None = None
    tokens: Number
    predicted_share: Number
    observed_share: Number
    gap: Number
    intervals: dict[str, IntervalRecord | None] | None = None

    def interval(self, key: str) -> IntervalRecord | None:
        """The interval of one of its figures, where there is one."""
        return (self.intervals or {}).get(key)


class ArmEvaluation(Record):
    """Single figures of an evaluation, flat, as ablation.json holds them for each arm."""

    corpus: Text | None = None
    split: Text | None = None
    event: Text = "token"
    """What is predicted: token, byte, word, canonical-byte, canonical-word; candidate,
    prediction."""
    sample: SampleRecord | None = None


class EvaluationRecord(FileRecord):
    """evaluations/*.json: a run scored on a split; figures are flat beside their tables.

    Predictions of any model are such an evaluation too: `corpus` is then the name of their file,
    and `corpus_hash` that of their content; `split` is "all", `step` 0, `bytes` 0.

    Attributes:
        temperature: divided the logits; or the name of the head that supplied it.
        limit: bytes of text that were asked for, about; None means the whole split.
        sample: what was scored of the split.
        effective_documents: how many documents of equal size would tell as much (Kish).
        notes: what a reader of the figures must know.
        intervals, bounds, signatures: by figure: its interval, how far it may be off, how it was
            made.
    """

    REMEDY: ClassVar[str] = "evaluate again"
    SEALED: ClassVar[bool] = True

    version: Text | None = None
    corpus: Text
    split: Text
    step: Whole
    corpus_hash: Text | None = None
    tokenizer_hash: Text | None = None
    config_hash: Text | None = None
    vocab_size: Whole | None = None
    context: Whole | None = None
    bins: Whole
    documents: Whole
    effective_documents: Number | None = None
    sample: SampleRecord | None = None
    limit: Whole | None = None
    event: Text = "token"
    temperature: NumberOrName | None = 1.0
    notes: list[Text] | None = None
    bytes: Number
    ece: Number
    signed_gap: Number
    intervals: dict[str, IntervalRecord | None] | None = None
    bounds: dict[str, Number | None] | None = None
    signatures: dict[str, Text] | None = None
    reliability: list[ReliabilityBin]
    smooth_reliability: list[SmoothPoint] | None = None
    risk_coverage: list[RiskPoint] | None = None
    frequency_mass: list[FrequencyMassRow] | None = None
    frequency_deciles: list[StratumRow] | None = None
    predicted_frequency: list[StratumRow] | None = None
    positions: list[StratumRow] | None = None
    entropy_bands: list[StratumRow] | None = None
    confidence_bands: list[StratumRow] | None = None
    groups: list[StratumRow] | None = None
    word_pieces: list[StratumRow] | None = None
    word_frequency: list[StratumRow] | None = None

    @model_validator(mode="after")
    def _per_byte(self) -> Self:
        if self.event == "token":
            require_number(self, "bits_per_byte")
        return self

    @cached_property
    def strata(self) -> Mapping[str, list[StratumRow]]:
        """Rows by the name of their stratum, for those of `STRATA` that the file holds."""
        return {name: rows for name in STRATA if (rows := getattr(self, name))}

    @property
    def tempered(self) -> str:
        """The temperature in words, empty where it changes nothing."""
        temperature = self.temperature or 1
        if temperature == 1:
            return ""
        return f"T = {temperature if isinstance(temperature, str) else f'{temperature:.3g}'}"

    def interval(self, key: str) -> IntervalRecord | None:
        """The interval of a figure, where there is one."""
        return (self.intervals or {}).get(key)

    def signature(self, key: str) -> str | None:
        """How a figure was made, where the file says it."""
        return (self.signatures or {}).get(key)
