"""The results in the folder of a run or a study: its records, read together.

What does not fit ends in one clear line. An evaluation that an arm's study names is found again
among the files of the arm's run.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from calibtrain.config.yaml_text import read_tree
from calibtrain.errors import UserError
from calibtrain.runs.analysis_records import Analyses, read_analyses
from calibtrain.runs.evaluation_records import ArmEvaluation, EvaluationRecord
from calibtrain.runs.records import (
    HEADS_FILE,
    RUN_FILE,
    STUDY_FILE,
    ArmRecord,
    DifferenceRecord,
    HeadComparisonRecord,
    RunRecord,
    StudyRecord,
    SummaryRecord,
)
from calibtrain.runs.seeds import differences, summarise
from calibtrain.storage.metrics import is_evaluation, read_metrics

_SAME = ("step", "corpus_hash", "limit", "temperature", "bins", "bytes")
"""The keys that tell evaluations of one corpus and split apart."""


# --- a run ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """Where training stood, and what was measured there (without `train/` or `eval/`)."""

    step: int
    tokens: float | None
    bytes: float | None
    values: Mapping[str, float]


@dataclass(frozen=True)
class RunResults:
    """A run folder: run.json, metrics.jsonl, evaluations/*.json, the comparison of its heads, and
    analysis/*.json.

    `finetune` is the section of that name in its config.yaml, for a run that is a fine-tuning.
    """

    record: RunRecord
    training: tuple[Measured, ...] = ()
    measured: tuple[Measured, ...] = ()
    evaluations: tuple[EvaluationRecord, ...] = ()
    heads: HeadComparisonRecord | None = None
    finetune: Mapping[str, Any] | None = None
    analyses: Analyses = field(default_factory=Analyses)

    @cached_property
    def main(self) -> EvaluationRecord | None:
        """The evaluation a reader wants first: own corpus, test before validation, the latest.

        Its events are tokens, and its temperature is 1 if there is a choice.
        """
        order = {"test": 0, "validation": 1}
        corpus = self.record.corpus
        return min(
            self.of_tokens,
            key=lambda e: (
                e.corpus != corpus.name,
                e.corpus_hash not in (None, corpus.content_hash),
                order.get(e.split, 2),
                e.tempered != "",
                -e.step,
            ),
            default=None,
        )

    @property
    def lost_lines(self) -> str:
        """Says where `metrics.jsonl` has lost training lines; empty where it has not.

        Training writes a line at every multiple of a number of steps, and at the last step.
        """
        step, steps = self.record.step, self.record.steps
        if self.record.status not in ("done", "stopped") or step < 1:
            return ""
        found = [line.step for line in self.training]
        every = max(1, found[0] if found else steps)
        at_end = step == steps and steps % every > 0
        for at in range(step // every + at_end):
            wanted = min(every * (at + 1), steps)
            if at >= len(found) or found[at] != wanted:
                return (
                    f"metrics.jsonl has lost lines: that of step {wanted:,} is not there; the "
                    "command that made the run writes them again"
                )
        return ""

    @property
    def of_tokens(self) -> tuple[EvaluationRecord, ...]:
        """The evaluations whose events are tokens."""
        return tuple(e for e in self.evaluations if e.event == "token")

    @property
    def by_event(self) -> Mapping[str, tuple[EvaluationRecord, ...]]:
        """The evaluations of other events, by their event."""
        events = dict.fromkeys(e.event for e in self.evaluations if e.event != "token")
        return {name: tuple(e for e in self.evaluations if e.event == name) for name in events}

    def document(self) -> dict[str, Any]:
        """Returns every record as it was read: what the page of a run carries along."""
        heads = {} if self.heads is None else {"heads": self.heads.document()}
        found = [evaluation.document() for evaluation in self.evaluations]
        analyses = {"analyses": held} if (held := self.analyses.document()) else {}
        return {"run": self.record.document(), "evaluations": found, **heads, **analyses}


def read_run(folder: Path) -> RunResults:
    """Returns the results of the run in a folder.

    Raises:
        UserError: a file is missing or damaged.
    """
    record = RunRecord.read(folder / RUN_FILE)
    metrics = folder / "metrics.jsonl"
    # A run that has only just begun has not written a line yet, an imported model never does.
    begun = metrics.exists() or record.status == "done"
    training, measured = _read_metrics(metrics) if begun else ((), ())
    heads = folder / "temperature" / HEADS_FILE
    return RunResults(
        record=record,
        training=training,
        measured=measured,
        evaluations=tuple(
            EvaluationRecord.read(file) for file in sorted((folder / "evaluations").glob("*.json"))
        ),
        heads=HeadComparisonRecord.read(heads) if heads.is_file() else None,
        finetune=_finetune(folder / "config.yaml"),
        analyses=read_analyses(folder),
    )


def _finetune(path: Path) -> Mapping[str, Any] | None:
    """Returns the section `finetune` of a configuration; None where there is none."""
    found = read_tree(path).get("finetune") if path.is_file() else None
    return found if isinstance(found, Mapping) else None


def _read_metrics(path: Path) -> tuple[tuple[Measured, ...], tuple[Measured, ...]]:
    """Returns the training lines and the evaluation lines, each in the order of their steps."""
    try:
        lines = read_metrics(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
    training: dict[int, Measured] = {}
    measured: dict[int, Measured] = {}
    for line in lines:
        kind, prefix = (measured, "eval/") if is_evaluation(line) else (training, "train/")
        kind[line["step"]] = Measured(
            step=line["step"],
            tokens=line.get("train/tokens"),
            bytes=line.get("train/bytes"),
            values={
                key.removeprefix(prefix): value
                for key, value in line.items()
                if key.startswith(prefix) and value is not None
            },
        )
    return (
        tuple(training[step] for step in sorted(training)),
        tuple(measured[step] for step in sorted(measured)),
    )


# --- a study -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ArmResults:
    """One arm of a study; `run` is None when it failed before it wrote anything.

    Attributes:
        evaluations: the figures of each evaluation, of every event.
        scored: the evaluation files behind them, under the same names, as far as they are there.
    """

    record: ArmRecord
    run: RunResults | None
    evaluations: Mapping[str, ArmEvaluation | EvaluationRecord]
    scored: Mapping[str, EvaluationRecord]

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the arm sets, by dotted path."""
        return self.record.settings

    @property
    def vocab_size(self) -> int | None:
        """Entries of its vocabulary."""
        return self.record.vocab_size

    def found_again(self, name: str) -> bool:
        """Whether a file of more text stands in place of what ablation.json says."""
        return self.evaluations.get(name) is not self.record.evaluations.get(name)


@dataclass(frozen=True)
class StudyResults:
    """A study folder.

    Attributes:
        record: ablation.json.
        text: that file, character for character.
        arms: with the runs behind them.
        summary: means over seeds of every evaluation that is named below.
        differences: of every evaluation that is named below, between all pairs of settings.
        evaluations: names of those of tokens.
        by_event: names of the others by their event, the one to show first in front.
        main: the evaluation of tokens that a reader wants first, empty when there is none.
    """

    record: StudyRecord
    text: str
    arms: tuple[ArmResults, ...]
    summary: tuple[SummaryRecord, ...]
    differences: tuple[DifferenceRecord, ...]
    evaluations: tuple[str, ...]
    by_event: Mapping[str, tuple[str, ...]]
    main: str

    @property
    def runs(self) -> tuple[RunResults, ...]:
        """The run of every arm that has one."""
        return tuple(arm.run for arm in self.arms if arm.run is not None)

    @property
    def exact_entropy(self) -> float | None:
        """The exact entropy rate of the text in bits per byte, where every run says the same."""
        found = {run.record.corpus.entropy_bits_per_byte for run in self.runs}
        return found.pop() if len(found) == 1 else None


def read_study(folder: Path) -> StudyResults:
    """Returns the results of the study in a folder, with those of every arm.

    Raises:
        UserError: a file is missing or damaged; what an arm left that did not finish may be.
    """
    path = folder / STUDY_FILE
    record, text = StudyRecord.read(path), path.read_text(encoding="utf-8")
    arms = _with_files([_read_arm(folder, arm) for arm in record.arms])
    named = {name: found.event for arm in arms for name, found in arm.evaluations.items()}
    names = tuple(name for name, event in named.items() if event == "token")
    main = _main(names)
    by_event = {
        event: tuple(
            sorted(
                (name for name in named if named[name] == event),
                key=lambda name: name != f"{main}-{event}",
            )
        )
        for event in dict.fromkeys(named.values())
        if event != "token"
    }
    # What ablation.json says of an evaluation holds for the figures that it holds.
    told = {name for arm in record.arms for name in arm.evaluations}
    told -= {name for arm in arms for name in arm.evaluations if arm.found_again(name)}
    new = [name for name in named if name not in told]
    unpaired = new if record.differences is not None else list(named)
    return StudyResults(
        record=record,
        text=text,
        arms=arms,
        summary=(*(r for r in record.summary if r.evaluation in told), *summarise(arms, new)),
        differences=(
            *(r for r in record.differences or () if r.evaluation in told),
            *(r for r in differences(arms) if r.evaluation in unpaired),
        ),
        evaluations=names,
        by_event=by_event,
        main=main,
    )


def _read_arm(study: Path, record: ArmRecord) -> ArmResults:
    folder = study / record.folder
    run = read_run(folder) if record.status == "done" else _remains(folder)
    told = record.evaluations
    behind = {} if run is None else {name: _behind(name, told[name], run) for name in told}
    scored = {name: found for name, found in behind.items() if found is not None}
    return ArmResults(record=record, run=run, evaluations=told, scored=scored)


def _with_files(arms: Sequence[ArmResults]) -> tuple[ArmResults, ...]:
    """Returns the arms with what their files say of other events than the token.

    An evaluation that ablation.json holds gives way to files of more text only if every arm that
    finished has one, of as much text.
    """
    done = [arm for arm in arms if arm.record.status == "done" and arm.run is not None]
    found = {arm.record.name: _of_other_events(arm.run) for arm in done if arm.run is not None}
    kept: dict[str, dict[str, EvaluationRecord]] = {name: {} for name in found}
    for name in dict.fromkeys(name for each in found.values() for name in each):
        files = {arm: each[name] for arm, each in found.items() if name in each}
        told = [arm.evaluations[name] for arm in done if name in arm.evaluations]
        whole = len(files) == len(done) and len({file.bytes for file in files.values()}) == 1
        least = min(file.bytes for file in files.values())
        if not told or (whole and all(least > each.numbers.get("bytes", 0) for each in told)):
            for arm, file in files.items():
                kept[arm][name] = file
    return tuple(
        replace(
            arm,
            evaluations={**arm.evaluations, **kept.get(arm.record.name, {})},
            scored={**arm.scored, **kept.get(arm.record.name, {})},
        )
        for arm in arms
    )


def _of_other_events(run: RunResults) -> dict[str, EvaluationRecord]:
    """Returns a run's latest evaluation by each event but the token, of the most text, by name."""
    found: dict[str, EvaluationRecord] = {}
    for evaluation in sorted(run.evaluations, key=lambda e: (e.step, e.bytes)):
        if evaluation.event != "token":
            name = f"{evaluation.corpus}-{evaluation.split}-{evaluation.event}"
            found[", ".join(filter(None, (name, evaluation.tempered)))] = evaluation
    return found


def _remains(folder: Path) -> RunResults | None:
    """Returns what is left of an arm that did not finish, which may be anything or nothing."""
    try:
        return read_run(folder)
    except UserError:
        return None


def _behind(name: str, flat: ArmEvaluation, run: RunResults) -> EvaluationRecord | None:
    """Returns the evaluation file of an arm for one of the evaluations its study names.

    Files of the same corpus and split may be of another amount of text or another temperature: the
    one meant agrees in all that both say.
    """
    plain = name.removesuffix(f"-{flat.event}")
    wanted = _slug(f"{flat.corpus}-{flat.split}" if flat.corpus and flat.split else plain)
    same = {key: flat.get(key) for key in _SAME if key in flat}
    found: Iterable[EvaluationRecord] = (
        e
        for e in run.evaluations
        if e.event == flat.event
        and _slug(f"{e.corpus}-{e.split}") == wanted
        and all(e.get(key, value) == value for key, value in same.items())
    )
    return max(found, key=lambda e: e.step, default=None)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def _main(names: Sequence[str]) -> str:
    for split in ("test", "validation"):
        for name in names:
            if name.rsplit("-", 1)[-1] == split:
                return name
    return names[0] if names else ""
