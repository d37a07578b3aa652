"""The folders of the runs to be trained: made or found, locked, and removed again if empty."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from calibtrain.config import Config
from calibtrain.errors import UserError
from calibtrain.models.attention import require_available
from calibtrain.parallel import hosts
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder
from calibtrain.storage.disk import disk_errors
from calibtrain.storage.places import place
from calibtrain.training.as_begun import as_begun, as_begun_plan
from calibtrain.training.plan import Plan


@contextmanager
def held_folders(
    configs: Sequence[Config], paths: Sequence[Path], plan: Callable[[], list[Plan]]
) -> Iterator[list[tuple[Plan, RunFolder]]]:
    """Yields the plan and the folder of each run; no other process writes them meanwhile.

    Args:
        configs: of the runs.
        paths: of their folders.
        plan: makes their plans, once it is known that folders which are there fit.

    Raises:
        UserError: for a folder of something else, or that another process holds. A folder made
            here is removed again where a UserError ends its use before it holds a checkpoint.
    """
    require_available(configs[0].model)
    runs = [RunFolder(place(path), writes=hosts.is_primary()) for path in paths]
    there = [bool(hosts.agreed(run.exists)) for run in runs]
    with ExitStack() as held:
        for config, run, exists in zip(configs, runs, there, strict=True):
            if exists:
                run.check_trained_here()
                run.check_config(as_begun(config, run))
                _hold(run, held)
        plans = [
            as_begun_plan(plan, as_begun(plan.config, run), run) if exists else plan
            for plan, run, exists in zip(plan(), runs, there, strict=True)
        ]
        made: list[RunFolder] = []
        try:
            for own, run, exists in zip(plans, runs, there, strict=True):
                if not exists:
                    _create(own, run)
                    _hold(run, held)
                    made.append(run)  # not before: what another process holds is not ours to remove
            with disk_errors(runs[0].path):  # what nothing else named, as too many open files
                for own, run in zip(plans, runs, strict=True):
                    _check_tokenizer(own, run)
                    run.write_target_counts(own.store.counts)  # in case they were lost
                yield list(zip(plans, runs, strict=True))
        except UserError:
            for run in made:
                if run.writes and not checkpoint.steps_saved(run.checkpoints):
                    run.remove()
            raise


def _check_tokenizer(plan: Plan, run: RunFolder) -> None:
    found = run.read_tokenizer().hash
    if found != plan.tokenizer.hash:
        raise UserError(
            f"{run.path}: was made with another tokenizer (hash {found}, the configuration now "
            f"gives {plan.tokenizer.hash}); choose another --run"
        )


def _create(plan: Plan, run: RunFolder) -> None:
    """Makes a run folder."""

    def fill(folder: Path) -> None:
        plan.tokenizer.save(folder / "tokenizer")
        RunFolder(folder).write_target_counts(plan.store.counts)

    with hosts.together():
        run.create(plan.config, fill)


def _hold(run: RunFolder, held: ExitStack) -> None:
    """Takes a run's lock; where its host does not get it, all hosts raise."""
    with hosts.together():
        held.enter_context(run.locked())
