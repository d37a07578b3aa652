"""Trains several seeds of one run by one program in this process, as a study of one arm."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.ablation.controls import ControlledArm, held_fixed
from calibtrain.ablation.records import result_of
from calibtrain.ablation.result import write_result
from calibtrain.ablation.runner import StudyObserver
from calibtrain.ablation.study import expand
from calibtrain.config import Config, ControlsConfig, StudyConfig, resolved_yaml, with_value
from calibtrain.data.batches.store import Observer, ignore
from calibtrain.errors import UserError
from calibtrain.evaluation import train_together
from calibtrain.parallel import hosts
from calibtrain.runs.folder import RunFolder
from calibtrain.storage.disk import cache_directory, make_folder, write_whole
from calibtrain.storage.places import absolute, remove_tree
from calibtrain.training.begin import Member
from calibtrain.training.loop import Outcome
from calibtrain.training.plan import Plan, make_plans

Planner = Callable[[Sequence[Config], Path, Observer], list[Plan]]
"""Prepares such runs and says what they will do, as `make_plans`."""
Together = Callable[..., list[Outcome]]
"""Trains members that differ in their seed alone, as `train_together`."""


def train_replicas(
    config: Config,
    folder: Path,
    *,
    command: str = "",
    cache: Path | None = None,
    observer: StudyObserver = lambda arm, event: None,
    together: Together = train_together,
    planner: Planner = make_plans,
) -> dict[str, Any]:
    """Trains `train.replicas` seeds from `seed` on, each as a run in `folder`/seed=N.

    Args:
        config: configuration of the run.
        folder: folder of all runs; it becomes that of a study.
        command: the command line, for the record.
        cache: folder of prepared data.
        observer: called with (seed's name, event).
        together: trains the seeds; `finetune_together` fine-tunes them.
        planner: says again what they did, for the record.

    Returns:
        The content of ablation.json: the runs, and their means with intervals.

    Raises:
        UserError: for a mistake that the user can correct. A seed that diverges does not raise.
    """
    cache = cache or cache_directory()
    seeds = list(range(config.seed, config.seed + config.train.replicas))
    study = StudyConfig(
        title=f"{absolute(folder).name}, {len(seeds)} seeds"[:200],
        base=with_value(config, {"evaluation.events": list(config.evaluation.events)}),
        grid={"seed": seeds},
        controls=ControlsConfig(budget="as_given", parameters="as_given", context="as_given"),
    )
    seeded = expand(study)
    single = RunFolder(folder, writes=hosts.is_primary())
    made = not folder.exists()
    with hosts.together():
        if single.exists:
            raise UserError(
                f"{folder}: is the folder of a single run, and train.replicas is "
                f"{len(seeds)}; choose another --run"
            )
        if single.writes:
            make_folder(folder)
    members = [
        Member(arm.config, folder / arm.name, _observe(observer, arm.name)) for arm in seeded
    ]
    with single.locked():
        if single.writes:
            write_whole(folder / "study.yaml", resolved_yaml(study))
        try:
            together(members, cache=cache)
        except UserError:
            if single.writes and not any(member.path.exists() for member in members):
                (folder / "study.yaml").unlink(missing_ok=True)
                if made:
                    remove_tree(folder)
            raise
        if not single.writes:
            return {}
        plans = planner([arm.config for arm in seeded], cache, ignore)
        arms = [
            ControlledArm(arm.name, dict(arm.settings), arm.config, plan)
            for arm, plan in zip(seeded, plans, strict=True)
        ]
        records = [result_of(arm, folder) for arm in arms]
        return write_result(folder, study, command, held_fixed(study, arms), records)


def _observe(observer: StudyObserver, name: str) -> Any:
    def observe(event: Mapping[str, Any]) -> None:
        observer(name, event)

    return observe
