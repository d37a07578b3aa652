"""The JSON files of runs and studies: one class each, through which they are written and read.

A field without a default is in every file; one with a default is absent from files of an earlier
version, or where there is nothing to say. Keys that stand here nowhere are kept (`Record`).
"""

from typing import Any, ClassVar

from calibtrain.runs.evaluation_records import ArmEvaluation
from calibtrain.runs.record import (
    FileRecord,
    Flag,
    Number,
    Record,
    Text,
    Whole,
)

RUN_FILE = "run.json"
STUDY_FILE = "ablation.json"
HEADS_FILE = "comparison.json"

# --- run.json ------------------------------------------------------------------------------------


class SplitRecord(Record):
    """Size of one split of a corpus."""

    documents: Whole
    bytes: Whole


class CorpusRecord(Record):
    """Where the text came from. `entropy_bits_per_byte` is exact, for synthetic sources only."""

    name: Text
    source: Text
    version: Text
    content_hash: Text
    splits: dict[str, SplitRecord]
    entropy_bits_per_byte: Number | None = None


class TokenizerRecord(Record):
    """Which vocabulary a run uses."""

    kind: Text
    vocab_size: Whole
    hash: Text
    bytes_per_token: Number | None = None


class ParametersRecord(Record):
    """Number of parameters, by part."""

    embedding: Whole
    unembedding: Whole
    body: Whole
    total: Whole


class MemoryRecord(Record):
    """Bytes of one training step as compiled, and what tokens x vocabulary logits would need."""

    parameters: Number | None = None
    optimizer: Number | None = None
    peak_temporary: Number | None = None
    logits: Number | None = None


class BudgetRecord(Record):
    """How much training there is: optimizer steps, tokens, bytes of text, FLOPs."""

    steps: Whole | None = None
    tokens: Number | None = None
    bytes: Number | None = None
    flops: Number | None = None


class RunRecord(FileRecord):
    """run.json: how far a run is, what it trains on, its size, its software.

    Attributes:
        status: running, stopped, failed, done or imported.
        row_tokens: tokens of a training row, where a fine-tuning has others than the context.
        temperature: the head that the network was trained with.
        trained: what a fine-tuning trains: how many parameters, in adapters of which maps.
        started_from: the checkpoint that a fine-tuning starts from: its step and SHA-256.
        seconds: spent training and evaluating, over all starts.
        error: why it failed.
        imported: where an imported model comes from.
    """

    INDENT: ClassVar[int] = 2

    name: Text
    status: Text
    step: Whole
    steps: Whole
    version: Text
    jax: Text
    device: Text
    config_hash: Text
    corpus: CorpusRecord
    tokenizer: TokenizerRecord
    context_tokens: Whole
    row_tokens: Whole | None = None
    parameters: ParametersRecord
    temperature: dict[str, Any] | None = None
    trained: dict[str, Any] | None = None
    started_from: dict[str, Any] | None = None
    budget: BudgetRecord
    memory: MemoryRecord
    seconds: Number | None = None
    error: Text | None = None
    imported: dict[str, Any] | None = None


# --- ablation.json -------------------------------------------------------------------------------


class ArmRecord(Record):
    """One arm of a study, and the single figures of its final evaluations.

    Those of tokens are called CORPUS-SPLIT, those of other events CORPUS-SPLIT-EVENT.
    """

    name: Text
    folder: Text
    settings: dict[str, Any]
    status: Text
    error: Text | None = None
    vocab_size: Whole | None = None
    evaluations: dict[str, ArmEvaluation]


class SummaryRecord(Record):
    """Mean and half width of the 95 % interval over the seeds of one combination of settings.

    With one seed the half widths are null. `signatures` are those of each figure: one, unless
    unlike figures were mixed.
    """

    settings: dict[str, Any]
    vocab_size: Whole | None = None
    seeds: Whole
    evaluation: Text
    mean: dict[str, Number]
    half_width: dict[str, Number | None]
    signatures: dict[str, list[Text]] | None = None


class DifferenceRecord(Record):
    """Figures of one combination of settings less those of another, paired over their seeds.

    Attributes:
        evaluation: the evaluation that both have.
        settings, reference: the combinations, without the seed: the first less the second.
        seeds: how many seeds both have.
        mean: of the differences, by figure.
        half_width: of their 95 % interval (Student's t); null with one seed.
    """

    evaluation: Text
    settings: dict[str, Any]
    reference: dict[str, Any]
    seeds: Whole
    mean: dict[str, Number]
    half_width: dict[str, Number | None]


class HeldFixed(Record):
    """One control: the rule, and the range that was found over the arms."""

    quantity: Text
    rule: Text
    unit: Text | None = None
    smallest: Any = None
    largest: Any = None
    held: Flag


class StudyRecord(FileRecord):
    """ablation.json: the grid and its controls, every arm, and means and differences over seeds."""

    FINITE: ClassVar[bool] = False
    """A setting may be infinite."""
    SEALED: ClassVar[bool] = True

    title: Text
    version: Text
    command: Text
    grid: dict[str, Any]
    controls: dict[str, Any]
    held_fixed: list[HeldFixed]
    arms: list[ArmRecord]
    summary: list[SummaryRecord]
    differences: list[DifferenceRecord] | None = None


# --- temperature/comparison.json -----------------------------------------------------------------


class FittedOn(Record):
    """Which text heads were fitted on."""

    corpus: Text
    split: Text


class CheckpointRecord(Record):
    """Which checkpoint heads were fitted to."""

    step: Whole


class Difference(Record):
    """A figure less that of no head, with its 95 % interval over documents."""

    difference: Number
    lower: Number
    upper: Number
    method: Text | None = None


class HeadRow(Record):
    """A head on a corpus; `none` is the model as it is, which differs from nothing."""

    head: Text
    parameters: Whole
    seconds: Number
    nll: Number
    bits_per_byte: Number
    ece: Number
    smooth_calibration_error: Number
    signed_gap: Number
    signatures: dict[str, Text] | None = None
    differences: dict[str, Difference] | None = None


class HeadTable(Record):
    """All heads on one corpus."""

    corpus: Text
    corpus_hash: Text | None = None
    in_domain: Flag
    split: Text
    documents: Whole | None = None
    effective_documents: Number | None = None
    limit: Whole | None = None
    bins: Whole | None = None
    notes: list[Text] | None = None
    rows: list[HeadRow]

    @property
    def name(self) -> str:
        """CORPUS-SPLIT."""
        return f"{self.corpus}-{self.split}"


class HeadComparisonRecord(FileRecord):
    """temperature/comparison.json: temperature heads side by side, on each corpus."""

    SEALED: ClassVar[bool] = True

    version: Text | None = None
    device: Text | None = None
    fitted_on: FittedOn
    checkpoint: CheckpointRecord
    corpora: list[HeadTable]
