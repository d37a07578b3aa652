"""How training begins: run folders are held for this process, checked or made, and planned."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import jax

from calibtrain.config import Config
from calibtrain.data.batches.store import ignore
from calibtrain.errors import TransientError, UserError
from calibtrain.models.attention import require_available
from calibtrain.parallel import hosts
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.starts import count_start, counted
from calibtrain.storage.compiled import use_compiled_programs
from calibtrain.storage.disk import disk_errors
from calibtrain.storage.places import in_bucket, place
from calibtrain.training.as_begun import as_begun, as_begun_plan, with_own_sample
from calibtrain.training.plan import Plan, make_plans
from calibtrain.training.run_writer import PROGRAMS, Observer

NARROW_ON_A_CPU = (
    "model.compute: bfloat16 takes longer than float32 on a CPU with this JAX, and rounds more; "
    "JAX 0.12 is faster with it where the processor has AVX512-BF16; auto takes float32 here"
)
"""Said where a run is asked for bfloat16 that gains nothing."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A run to be trained, alone or with others that differ in their seed alone.

    Attributes:
        config: what to train.
        path: the run folder.
        observer: is told what happens; on the host that speaks for all.
    """

    config: Config
    path: Path
    observer: Observer = ignore


@dataclasses.dataclass(frozen=True)
class BegunRun:
    """A run whose folder is there and held by this process: what `loop.train` takes.

    Attributes:
        plan: what it will do.
        folder: is where it is written.
        observer: is told what happens.
        cache: where prepared data is kept, and compiled programs.
    """

    plan: Plan
    folder: RunFolder
    observer: Observer = ignore
    cache: Path | None = None


@contextmanager
def begun(
    members: Sequence[Member],
    *,
    cache: Path,
    planner: Callable[[Sequence[Config], Path, Observer], list[Plan]] = make_plans,
) -> Iterator[list[BegunRun]]:
    """Holds the folders of runs while they are trained; makes those that are not there.

    A run that is there is locked before it is planned, so that no other process changes it in
    between. A folder made here is removed again if a mistake is found before its first checkpoint.
    A run whose last starts led to no new checkpoint is refused (`runs.starts`).

    Args:
        members: one run, or several that differ in their seed alone.
        cache: where prepared data is kept.
        planner: prepares what is trained on, and says what will be done.

    Raises:
        UserError: for a run that cannot be begun or gone on with as asked, or that another process
            holds.
    """
    require_available(members[0].config.model)
    if not hosts.is_primary():
        members = [dataclasses.replace(member, observer=ignore) for member in members]
    if members[0].config.model.compute == "bfloat16" and _takes_longer_in_bfloat16():
        members[0].observer({"event": "note", "text": NARROW_ON_A_CPU})
    runs = [RunFolder(place(member.path), writes=hosts.is_primary()) for member in members]
    there = [bool(hosts.agreed(run.exists)) for run in runs]
    with ExitStack() as held:
        for member, run, exists in zip(members, runs, there, strict=True):
            if exists:
                run.check_trained_here()
                run.check_config(as_begun(member.config, run))
                _hold(run, held)
                count_start(run)
        configs = [
            with_own_sample(member.config, run) if exists else member.config
            for member, run, exists in zip(members, runs, there, strict=True)
        ]
        plans = planner(configs, cache, members[0].observer)
        plans = [
            as_begun_plan(plan, as_begun(member.config, run), run) if exists else plan
            for plan, member, run, exists in zip(plans, members, runs, there, strict=True)
        ]
        _require_alike(plans)
        made: list[RunFolder] = []
        try:
            for plan, run, exists in zip(plans, runs, there, strict=True):
                if not exists:
                    _create(plan, run)
                    _hold(run, held)
                    made.append(run)  # not before: what another process holds is not ours to remove
                    count_start(run)
            with disk_errors(runs[0].path):  # what nothing else named, as too many open files
                copy = runs[0].path / PROGRAMS if in_bucket(runs[0].path) else None
                with hosts.together():
                    use_compiled_programs(cache, copy)
                for plan, run in zip(plans, runs, strict=True):
                    _require_tokenizer(plan, run)
                    run.write_target_counts(plan.store.counts)  # in case they were lost
                with counted(runs):
                    yield [
                        BegunRun(plan, run, member.observer, cache)
                        for plan, run, member in zip(plans, runs, members, strict=True)
                    ]
        except TransientError:  # the next start goes on with them
            raise
        except UserError:
            for run in made:
                if run.writes and not checkpoint.steps_saved(run.checkpoints):
                    run.remove()
            raise


def _require_alike(plans: Sequence[Plan]) -> None:
    """Raises a UserError, on all hosts, where some would train on something else than the first."""
    for name, what in (("config", "configuration"), ("corpus", "text"), ("tokenizer", "tokenizer")):
        hashes = [str(getattr(plan.identity, name)) for plan in plans]
        if others := hosts.differing(" ".join(hashes)):
            told = ", ".join(map(str, others[:9])) + (", ..." if len(others) > 9 else "")
            raise UserError(
                f"{name}: process(es) {told} of this run have another {what} than process 0 (hash "
                f"{hashes[0]} here); give all hosts the same configuration, files and version of "
                "calibtrain"
            )


def _create(plan: Plan, run: RunFolder) -> None:
    """Makes a run folder."""

    def fill(folder: Path) -> None:
        plan.tokenizer.save(folder / "tokenizer")
        RunFolder(folder).write_target_counts(plan.store.counts)

    with hosts.together():
        run.create(plan.config, fill)


def _hold(run: RunFolder, held: ExitStack) -> None:
    """Takes a run's lock; where one host does not get it, all hosts raise."""
    with hosts.together():
        held.enter_context(run.locked())


def _require_tokenizer(plan: Plan, run: RunFolder) -> None:
    """Raises a UserError where a run holds another tokenizer than its plan."""
    there = run.read_tokenizer().hash
    if there != plan.tokenizer.hash:
        raise UserError(
            f"{run.path}: was made with another tokenizer (hash {there}, the configuration now "
            f"gives {plan.tokenizer.hash}); choose another --run"
        )


def _takes_longer_in_bfloat16() -> bool:
    return jax.default_backend() == "cpu" and jax.__version_info__[:2] < (0, 12)
