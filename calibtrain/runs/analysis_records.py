"""analysis/*.json: what generated text shows of a run; one class writes and reads each.

Those of questions and of the lens are in `instrument_records`.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from calibtrain.runs.instrument_records import EnsembleScoreRecord, LensRecord, QuestionsRecord
from calibtrain.runs.record import FileRecord, Number, Record, Text, Whole

R = TypeVar("R", bound=FileRecord)


class FigureRecord(Record):
    """An estimate and its 95 % interval over documents; the ends are null where it has none."""

    estimate: Number
    lower: Number | None = None
    upper: Number | None = None


class AnalysisRecord(FileRecord):
    """What every analysis of a run says of it.

    Attributes:
        head: name of the temperature head that divided the logits, if any did.
        documents: whose continuations were read.
        protocol: what was asked for: lengths in bytes, numbers of texts, seeds.
        notes: what a reader of the figures must know.
    """

    SEALED: ClassVar[bool] = True

    version: Text | None = None
    run: Text
    step: Whole
    corpus: Text
    split: Text
    corpus_hash: Text | None = None
    tokenizer_hash: Text
    vocab_size: Whole
    model: Text
    context: Whole
    head: Text | None = None
    documents: Whole
    protocol: dict[str, Whole | Text | None]
    notes: list[Text] | None = None


class PositionRow(Record):
    """Bytes start..stop after the prefix.

    Attributes:
        texts: that have a token there.
        bits_per_byte: over all of these.
        common_bits_per_byte: over those that reach the last position, the same in every row.
    """

    start: Whole
    stop: Whole
    texts: Whole
    bits_per_byte: FigureRecord | None = None
    common_bits_per_byte: FigureRecord | None = None


class TextsRow(Record):
    """Texts of one origin: the documents themselves, or generations.

    Attributes:
        name: text, ancestral, temperature, top-k or look-ahead.
        measured: cross entropy; entropy (of each step's whole distribution); or draws (-log of what
            was drawn, whose mean is the entropy).
        common_texts: that reach the last position.
        nats_per_token, bits_per_byte: the cross entropy of text, the entropy rate of generations.
        rise: bits per byte in the last quarter of the positions less those in the first, over the
            common texts.
        excess_nats_per_token, excess_bits_per_byte: entropy rate less the cross entropy of text.
        amplification: e to the first; amplification_per_byte: 2 to the second.
    """

    name: Text
    measured: Text
    sampling: dict[str, Number] | None = None
    texts: Whole
    ended: Whole
    common_texts: Whole
    tokens: Whole
    bytes: Whole
    nats_per_token: FigureRecord | None = None
    bits_per_byte: FigureRecord | None = None
    rise: FigureRecord | None = None
    excess_nats_per_token: FigureRecord | None = None
    excess_bits_per_byte: FigureRecord | None = None
    amplification: FigureRecord | None = None
    amplification_per_byte: FigureRecord | None = None
    positions: list[PositionRow]


class TemperatureFit(Record):
    """Algorithm 1: one temperature 1/(1 + alpha), by minimum cross entropy."""

    alpha: Number
    temperature: Number
    nll_before: Number
    nll_after: Number
    fitted_on: Text


class LookaheadFit(Record):
    """Algorithm 2: the coefficient by minimum cross entropy; see `analysis.lookahead_fit`.

    Attributes:
        held_out_gain: cross entropy at 0 less that at alpha on the measured split, in nats per
            token among the candidates.
    """

    alpha: FigureRecord
    candidates: Whole
    positions: Whole
    covered: Number
    cross_entropy_before: Number
    cross_entropy: Number
    gain: FigureRecord
    gap_before: FigureRecord
    gap: Number
    held_out_gain: FigureRecord | None = None
    fitted_on: Text


class EntropyRecord(AnalysisRecord):
    """analysis/entropy-*.json: entropy rate of generations against the cross entropy of text.

    Attributes:
        source_bits_per_byte: the known entropy rate of a synthetic source.
        rows: the documents first (`text`), then each kind of generation.
    """

    REMEDY: ClassVar[str] = "measure again: calibtrain entropy RUN"

    source_bits_per_byte: Number | None = None
    rows: list[TextsRow]
    temperature: TemperatureFit | None = None
    lookahead: LookaheadFit | None = None


class MemoryRow(Record):
    """The bound on what is lost where only so many tokens are seen."""

    tokens: Whole
    nats_per_token: FigureRecord | None = None
    bits_per_byte: FigureRecord | None = None


class LimitedRecord(Record):
    """Another run, trained with a short context, in the place of the run that is cut short."""

    run: Text
    context: Whole
    rows: list[MemoryRow]


class MemoryRecord(AnalysisRecord):
    """analysis/memory-*.json: the bound I(tau) for tau = 1, 2, 4, ... tokens.

    Attributes:
        positions: tokens of generations that were predicted, the same for every tau.
        bytes_per_token: of these.
        limited: the same tokens, predicted by a run with a short context.
    """

    REMEDY: ClassVar[str] = "measure again: calibtrain memory RUN"

    positions: Whole
    bytes_per_token: Number
    rows: list[MemoryRow]
    limited: LimitedRecord | None = None


class TypicalityRow(Record):
    """Texts of one origin: people (`text`), or a way of generating.

    Attributes:
        deviation: information minus entropy, in bits per byte, the mean over texts.
        spread: standard deviation of it between texts.
        information, entropy: their means over all bytes, in bits per byte.
        quality: mean of each proxy of quality.
    """

    name: Text
    texts: Whole
    bytes: Whole
    deviation: FigureRecord | None = None
    spread: Number | None = None
    information: FigureRecord | None = None
    entropy: FigureRecord | None = None
    quality: dict[str, FigureRecord | None]


class CorrelationRow(Record):
    """Spearman's rank correlation of quality with the deviation, and with its size.

    Attributes:
        quality: a proxy, or `score` of the user's file.
        texts: that have both.
        signed: with the deviation: above 0, better texts are less probable than expected.
        size: with its absolute value: below 0, better texts are more typical.
    """

    quality: Text
    texts: Whole
    signed: FigureRecord | None = None
    size: FigureRecord | None = None


class TypicalityRecord(AnalysisRecord):
    """analysis/typicality-*.json: information minus entropy of texts, and their quality.

    Attributes:
        judge: the run that predicts the texts as a proxy of quality, if any.
        scored: the user's file, if any.
    """

    REMEDY: ClassVar[str] = "measure again: calibtrain typicality RUN"

    rows: list[TypicalityRow]
    correlations: list[CorrelationRow]
    judge: Text | None = None
    scored: Text | None = None


def analysis_file(run: Path, *parts: str) -> Path:
    """Returns the file in a run's `analysis/` that is named by some words.

    Example:
        >>> str(analysis_file(Path("runs/tiny"), "questions", "mine/a b.jsonl", "own"))
        'runs/tiny/analysis/questions-mine_a_b.jsonl-own.json'
    """
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in "-".join(parts))
    return run / "analysis" / f"{name}.json"


@dataclass(frozen=True)
class Analyses:
    """The analyses in a run folder, by kind, each in the order of their files' names.

    Scores of ensembles whose first member the run is are among them.
    """

    entropy: tuple[EntropyRecord, ...] = ()
    memory: tuple[MemoryRecord, ...] = ()
    typicality: tuple[TypicalityRecord, ...] = ()
    questions: tuple[QuestionsRecord, ...] = ()
    lens: tuple[LensRecord, ...] = ()
    ensembles: tuple[EnsembleScoreRecord, ...] = ()

    def document(self) -> dict[str, Any]:
        """Returns every record as it was read; nothing of a kind that is not there."""
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: [each.document() for each in own] for name, own in found.items() if own}


def read_analyses(run: Path) -> Analyses:
    """Returns the analyses in a run folder.

    Raises:
        UserError: a file is damaged.
    """
    folder = run / "analysis"

    def read(kind: type[R], pattern: str, where: Path = folder) -> tuple[R, ...]:
        return tuple(map(kind.read, sorted(where.glob(pattern))))

    return Analyses(
        entropy=read(EntropyRecord, "entropy-*.json"),
        memory=read(MemoryRecord, "memory-*.json"),
        typicality=read(TypicalityRecord, "typicality-*.json"),
        questions=read(QuestionsRecord, "questions-*.json"),
        lens=read(LensRecord, "lens-*.json"),
        ensembles=read(EnsembleScoreRecord, "*.json", run / "ensembles"),
    )
