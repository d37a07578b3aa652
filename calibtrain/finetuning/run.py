"""Train on examples, resume, measure: `calibtrain finetune`."""

from pathlib import Path

from calibtrain.config import Config
from calibtrain.data.batches.store import ignore
from calibtrain.errors import UserError
from calibtrain.finetuning.evaluation import FinetuningEvaluation
from calibtrain.finetuning.plan import (
    checkpoint_of,
    make_finetuning_plans,
)
from calibtrain.runs.folder import RunFolder
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
    folder = cache or cache_directory()
    _require_same_base(config, RunFolder(place(path)))
    member = Member(config, path, observer)
    require_trackers([(config, path)])
    with (
        begun([member], cache=folder, planner=make_finetuning_plans) as begun_runs,
        tracked(begun_runs) as runs,
    ):
        (outcome,) = train(runs, [FinetuningEvaluation(each, folder) for each in runs])
    if outcome.error is not None:
        raise outcome.error
    return outcome


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
