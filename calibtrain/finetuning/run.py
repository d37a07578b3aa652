"""Train on examples, resume, measure: `calibtrain finetune`."""

from pathlib import Path

from calibtrain.config import Config
from calibtrain.data.store import ignore
from calibtrain.finetuning.evaluation import FinetuningEvaluation
from calibtrain.finetuning.plan import FinetuningPlan, make_finetuning_plans
from calibtrain.parallel import hosts
from calibtrain.storage.disk import cache_directory
from calibtrain.training.loop import Member, Outcome, train
from calibtrain.training.plan import Plan
from calibtrain.training.record import Observer
from calibtrain.training.run import RunFolder


def finetune(
    config: Config,
    path: Path,
    *,
    cache: Path | None = None,
    observer: Observer = lambda event: None,
) -> Outcome:
    """Fine-tune a run, or go on with that (see `training.loop`).

    Args:
        config: from `resolve`.
        path: of the new run.
        cache: where prepared data is kept.
        observer: is told what happens.

    Raises:
        UserError: for anything that the user can mend; a NonFiniteError if it diverges.
    """
    folder = cache or cache_directory()
    if not hosts.is_primary():
        observer = ignore

    def evaluation(plan: Plan, run: RunFolder, observer: Observer) -> FinetuningEvaluation:
        assert isinstance(plan, FinetuningPlan)
        return FinetuningEvaluation(plan, run, folder, observer)

    member = Member(config, path, observer)
    (outcome,) = train([member], cache=folder, evaluator=evaluation, planner=make_finetuning_plans)
    if outcome.error is not None:
        raise outcome.error
    return outcome
