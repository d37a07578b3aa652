"""What questions, the lens and scores of an ensemble said of a run: files of what `--json` prints.

One class writes and reads each of analysis/questions-*.json, analysis/lens-*.json and
ensembles/*.json.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import calibtrain
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.record import FileRecord, Number, Record, Text, Whole
from calibtrain.storage.documents import FORMAT


class InstrumentRecord(FileRecord):
    """What `--json` prints of an instrument, behind the format and version of its file."""

    SEALED: ClassVar[bool] = True

    version: Text | None = None

    @classmethod
    def of(cls, printed: Mapping[str, Any]) -> Self:
        """Returns the record of what `--json` prints, made by this version.

        Raises:
            UserError: where a key is missing or does not fit.
        """
        header = {"format": FORMAT, "version": calibtrain.__version__}
        return cls.parse({**header, **printed}, cls.__name__)


class GapRow(Record):
    """Mean confidence when right less when wrong, of all questions (`label` is None) or a group.

    Attributes:
        gap: null where no answer is right, or none wrong.
        lower, upper: its 95 % interval over questions.
        calibrated: the gap of the same confidences, were each right as often as it says.
    """

    label: Text | None
    questions: Whole
    right: Whole
    gap: Number | None
    lower: Number | None
    upper: Number | None
    calibrated: Number | None


class QuestionsRecord(InstrumentRecord):
    """analysis/questions-*.json: what a run answered, and how well it knew (docs/questions.md).

    Attributes:
        step: of the checkpoint.
        head: name of the temperature head that divided the logits, if any did.
        set: the questions: a built-in set, or the name of a file.
        set_hash: of questions and templates.
        protocol: how they were asked.
        questions: how many were measured.
        temperature: that divided the log-probabilities of candidates.
        fit: what was fitted to other questions, if anything was.
        top_candidate: the evaluation whose events are the most probable candidates.
        every_candidate: that whose events are all candidates.
        gaps: of all questions, then of each group.
        answers: the candidates of each question with their confidences.
    """

    REMEDY: ClassVar[str] = "measure again: calibtrain qa RUN --questions SET"

    step: Whole
    head: Text | None = None
    set: Text
    set_hash: Text
    protocol: dict[str, Any]
    questions: Whole
    temperature: Number
    fit: dict[str, Any] | None = None
    notes: list[Text]
    top_candidate: EvaluationRecord
    every_candidate: EvaluationRecord
    gaps: list[GapRow]
    answers: list[dict[str, Any]]

    @property
    def scored(self) -> str:
        """How candidates were scored: by tokens of their own, or over all tokenisations."""
        return str(self.protocol.get("tokenisations", "own"))


class LensRecord(InstrumentRecord):
    """analysis/lens-*.json: entropy of what each layer of a run would predict (docs/lens.md).

    Attributes:
        step: of the checkpoint.
        head: name of the temperature head that read every layer's states, if any did.
        layers: how many there are.
        texts: of each, its profile, and its tokens or its label.
        separation: by name of the entropy, how well labels are told from profiles.
    """

    REMEDY: ClassVar[str] = "measure again: calibtrain lens RUN --text TEXT"

    step: Whole
    head: Text | None = None
    layers: Whole
    texts: list[dict[str, Any]]
    separation: dict[str, dict[str, Any]]

    @property
    def labelled(self) -> bool:
        """Whether texts have labels."""
        return bool(self.separation)


class DifferenceRow(Record):
    """The ensemble's figure less a member's, and the 95 % interval, paired over documents."""

    estimate: Number
    lower: Number | None = None
    upper: Number | None = None


class MemberScore(Record):
    """The figures of a member; null where it gives some byte probability 0."""

    run: Text
    bits_per_byte: Number | None
    ece: Number | None
    difference: dict[str, DifferenceRow] | None
    evaluation: EvaluationRecord | None


class EnsembleScoreRecord(InstrumentRecord):
    """ensembles/NAME.json: a text, scored by a byte mixture and its members (docs/ensembles.md).

    Attributes:
        method, settings: how members were joined.
        runs: the model of each.
        bits_per_byte, ece: of the ensemble.
        members: in their order.
        beam_loss_bits: what members' beams dropped, as docs/ensembles.md says.
        evaluation: of the ensemble.
    """

    REMEDY: ClassVar[str] = "score again: calibtrain ensemble RUN RUN --score FILE --save NAME"

    method: Text
    settings: dict[str, Any]
    runs: list[dict[str, Any]]
    bits_per_byte: Number
    ece: Number
    members: list[MemberScore]
    beam_loss_bits: Number
    notes: list[Text]
    evaluation: EvaluationRecord
