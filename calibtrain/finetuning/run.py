"""Train on examples, resume, measure: `calibtrain finetune`."""

from collections.abc import Sequence
from pathlib import Path

from calibtrain.config import Config
from calibtrain.data.batches.store import ignore
from calibtrain.errors import UserError
from calibtrain.evaluation.while_training import token_evaluator
from calibtrain.finetuning.evaluation import FinetuningEvaluation
from calibtrain.finetuning.plan import (
    checkpoint_of,
    make_finetuning_plans,
)
from calibtrain.runs.folder import RunFolder
from calibtrain.scoring.answers import AnswerScorer
from calibtrain.storage.disk import cache_directory
from calibtrain.storage.places import place
from calibtrain.trackers import require_trackers, tracked
from calibtrain.training.begin import Member, begun
from calibtrain.training.loop import Outcome, train
from calibtrain.training.run_writer import Observer


def finetune(
    config: Config,
    path: Path,
    *,
    cache: Path | None = None,
    observer: Observer = ignore,
) -> Outcome:
    """Fine-tunes a run, or goes on with that.

    Args:
        config: from `resolve`.
        path: of the new run.
        cache: where prepared data is kept.
        observer: is told what happens.

    Raises:
        UserError: for anything that the user can mend; a NonFiniteError if it diverges.
    """
    (outcome,) = finetune_together([Member(config, path, observer)], cache=cache)
    if outcome.error is not None:
        raise outcome.error
    return outcome


def finetune_together(members: Sequence[Member], *, cache: Path | None = None) -> list[Outcome]:
    """Fine-tunes runs that differ in their seed alone; each is what `finetune` would make of it.

    Examples, the reference of dpo and compiled programs are those of all seeds.

    Raises:
        UserError: for anything that the user can mend, except that a run diverges: its outcome
            tells that.
    """
    folder = cache or cache_directory()
    for member in members:
        _require_same_base(member.config, RunFolder(place(member.path)))
    require_trackers([(member.config, member.path) for member in members])
    with (
        begun(members, cache=folder, planner=make_finetuning_plans) as begun_runs,
        tracked(begun_runs) as runs,
    ):
        plan = runs[0].plan
        evaluator = token_evaluator(plan)
        rows, context = plan.config.batch.rows, plan.batches.context
        scorer = AnswerScorer(plan.network, rows=rows, context=context)
        return train(runs, [FinetuningEvaluation(run, folder, evaluator, scorer) for run in runs])


def _require_same_base(config: Config, run: RunFolder) -> None:
    """Raise a UserError where a fine-tuning that goes on was started from another checkpoint.

    What was begun before run.json told is known by its configuration alone.
    """
    assert config.finetune is not None
    summary = run.read_summary()
    before = None if summary is None else summary.started_from
    if before is None:
        return
    now = checkpoint_of(RunFolder(place(config.finetune.run)))
    if now != before:
        raise UserError(
            f"{run.path}: was started from another checkpoint (step {before.get('step')}, sha256 "
            f"{str(before.get('sha256'))[:16]}) than {config.finetune.run} holds now (step "
            f"{now['step']}, sha256 {now['sha256'][:16]}); name the run that holds it by "
            "finetune.run, or choose another --run"
        )
