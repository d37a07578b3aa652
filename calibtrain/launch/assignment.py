"""The runs of a configuration to launch, in the same folders that `ablate` would use."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

from calibtrain.config import (
    Config,
    StudyConfig,
    load_config,
    load_study,
    read_tree,
)
from calibtrain.errors import UserError
from calibtrain.runs.folder import RunFolder


@dataclasses.dataclass(frozen=True)
class LaunchedRun:
    """One run.

    Attributes:
        name: name of the arm; empty for a single run.
        config: the resolved configuration; for an arm, under the study's controls.
        folder: the run folder, a path that all its hosts share.
    """

    name: str
    config: Config
    folder: str

    @property
    def is_done(self) -> bool:
        """Whether the folder holds exactly this run, finished; only for local folders."""
        return "://" not in self.folder and RunFolder(Path(self.folder)).is_done(self.config)


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A resolved configuration.

    Attributes:
        folder: folder of the run or the study.
        runs: the single run, or the arms of a study in the order of its grid.
        study: the study; None for a single run.
        impossible: names of arms that cannot be run, and why; `ablate` records them as failed.
    """

    folder: str
    runs: tuple[LaunchedRun, ...]
    study: StudyConfig | None = None
    impossible: tuple[tuple[str, str], ...] = ()


def resolve(
    config: Path,
    overrides: Iterable[str],
    folder: str,
    *,
    cache: Path | None = None,
    observer: Callable[[str, int, int], None] = lambda arm, number, total: None,
) -> Assignment:
    """Resolves a configuration into its runs.

    The controls of an ablation are imposed on its arms here, once, which prepares their data. On
    the cluster, each arm is then an ordinary training run.

    Args:
        config: YAML of a run, or of an ablation (which has a grid).
        overrides: overrides as `key.path=value`.
        folder: folder of the run or the study.
        cache: folder of prepared data.
        observer: called with the name of each arm before its data is prepared, its number from 0,
            and how many there are.

    Raises:
        UserError: where `train` or `ablate` would raise one, and where no arm can be run.
    """
    folder = folder.rstrip("/")
    if "grid" not in read_tree(config):
        run = LaunchedRun("", load_config(config, overrides), folder)
        return Assignment(folder, (run,))
    study = load_study(config, overrides)
    import jax

    from calibtrain.ablation.study import expand, with_seeds

    study = with_seeds(study)
    jax.config.update("jax_platforms", "cpu")  # this process only plans
    from calibtrain.ablation import apply_controls
    from calibtrain.storage.disk import cache_directory

    names = [arm.name for arm in expand(study)]

    def observe(name: str) -> None:
        if name in names:  # and not the base, which a control may need
            observer(name, names.index(name), len(names))

    arms, failed = apply_controls(study, cache or cache_directory(), observe)
    if not arms:
        raise UserError(f"{config}: no arm can be run; {failed[0].name}: {failed[0].error}")
    runs = tuple(LaunchedRun(arm.name, arm.config, f"{folder}/{arm.name}") for arm in arms)
    return Assignment(folder, runs, study, tuple((arm.name, arm.error) for arm in failed))
