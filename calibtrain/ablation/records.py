"""Records of arms for ablation.json, read from their run folders."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from calibtrain.ablation.controls import ControlledArm, FailedArm
from calibtrain.errors import UserError
from calibtrain.evaluation.final import answers_evaluation, final_evaluations
from calibtrain.evaluation.result import read_evaluation
from calibtrain.runs.evaluation_records import TABLES, ArmEvaluation
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.records import ArmRecord
from calibtrain.training.as_begun import as_begun, text_of
from calibtrain.training.resumption import metrics_trouble


def is_done(arm: ControlledArm, folder: Path) -> bool:
    """Returns whether exactly this arm was trained and scored in a folder, with all its metrics.

    Raises:
        UserError: for a damaged file of its run.
    """
    run = RunFolder(folder / arm.name)
    scored = all(path.is_file() for path in _evaluation_files(arm, run).values())
    if not (scored and run.is_done(as_begun(arm.config, run))):
        return False
    return metrics_trouble(arm.plan, run, arm.plan.budget.steps, run.read_metrics()) is None


def require_same_text(arms: Sequence[ControlledArm], folder: Path) -> None:
    """Raises a UserError where an arm was trained on text that its corpus no longer holds.

    Finished arms are not run again, so the other arms would be trained on different text.
    """
    for arm in arms:
        run = RunFolder(folder / arm.name)
        before = text_of(run) if run.exists else None
        provenance = arm.plan.corpus.provenance
        if before not in (None, provenance.content_hash):
            raise UserError(
                f"{run.path}: was trained on another text (content hash {before}) than its corpus "
                f"{provenance.name} holds now ({provenance.content_hash}); restore the text, or "
                "start the study again with another --run"
            )


def result_of(arm: ControlledArm, folder: Path, error: str | None = None) -> ArmRecord:
    """Returns the record of an arm that was run; `error` is the message of its process."""
    run = RunFolder(folder / arm.name)
    try:
        if is_done(arm, folder):
            return describe_arm(arm, "done", evaluations=_evaluations(arm, run))
        if error is not None:
            return describe_arm(arm, "failed", error)
        summary = run.read_summary()
        if summary is None:
            return describe_arm(arm, "stopped")
        status = summary.status
        if status in ("running", "done"):  # done, but not this very run, or not scored
            status = "stopped"
        return describe_arm(arm, status, summary.error)
    except UserError as damaged:
        return describe_arm(arm, "failed", str(damaged))


def describe_arm(
    arm: ControlledArm | FailedArm,
    status: str,
    error: str | None = None,
    evaluations: Mapping[str, ArmEvaluation] | None = None,
) -> ArmRecord:
    """Returns the record of an arm for ablation.json."""
    return ArmRecord(
        name=arm.name,
        folder=arm.name,
        settings=arm.settings,
        status=status,
        error=error,
        vocab_size=arm.plan.tokenizer.vocab_size if isinstance(arm, ControlledArm) else None,
        evaluations=dict(evaluations or {}),
    )


def _evaluation_files(arm: ControlledArm, run: RunFolder) -> dict[str, Path]:
    """Returns the files of an arm's final evaluations, by corpus, split and event."""
    config = arm.config
    name = (as_begun(config, run) if run.exists else config).corpus.name
    corpus_hash, step = arm.plan.corpus.provenance.content_hash, arm.plan.budget.steps
    wanted = final_evaluations(config.evaluation, name, corpus_hash, step)
    if config.finetune is not None and config.finetune.examples is not None:
        examples = config.finetune.examples
        wanted.append(answers_evaluation(config.evaluation, examples, corpus_hash, step))
    return {each.name: run.evaluations / each.file for each in wanted}


def _evaluations(arm: ControlledArm, run: RunFolder) -> dict[str, ArmEvaluation]:
    """Returns the scalar figures of an arm's final evaluations."""
    found = {name: read_evaluation(path) for name, path in _evaluation_files(arm, run).items()}
    return {
        name: ArmEvaluation(**{k: v for k, v in each.document().items() if k not in TABLES})
        for name, each in found.items()
    }
