"""What is to be launched: the runs of a configuration, with the very folders `ablate` would use."""

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
        name: of the arm; empty for a single run.
        config: resolved; for an arm, under the study's controls.
        folder: of the run; a path that all its hosts share.
    """

    name: str
    config: Config
    folder: str

    @property
    def is_done(self) -> bool:
        """Whether the folder holds this very run, finished. Looks at local folders only."""
        return "://" not in self.folder and RunFolder(Path(self.folder)).is_done(self.config)


@dataclasses.dataclass(frozen=True)
class Assignment:
    """A configuration, resolved.

    Attributes:
        folder: of the run or the study.
        runs: the one, or the arms of a study in the order of its grid.
        study: None for a single run.
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
    observer: Callable[[str], None] = lambda arm: None,
) -> Assignment:
    """Resolve a configuration into its runs.

    The arms of an ablation are put under its controls here, once, which prepares their data; on
    the engine, each is then a training run like any other.

    Args:
        config: YAML of a run, or of an ablation (it has a grid).
        overrides: `key.path=value`.
        folder: of the run or the study.
        cache: where prepared data is kept.
        observer: is told the name of each arm before its data is prepared.

    Raises:
        UserError: for whatever `train` or `ablate` would refuse, and where no arm can be run.
    """
    folder = folder.rstrip("/")
    if "grid" not in read_tree(config):
        run = LaunchedRun("", load_config(config, overrides), folder)
        return Assignment(folder, (run,))
    study = load_study(config, overrides)
    import jax

    from calibtrain.ablation.study import with_seeds

    study = with_seeds(study)
    jax.config.update("jax_platforms", "cpu")  # this process only plans
    from calibtrain.ablation import apply_controls
    from calibtrain.storage.disk import cache_directory

    arms, failed = apply_controls(study, cache or cache_directory(), observer)
    if not arms:
        raise UserError(f"{config}: no arm can be run; {failed[0].name}: {failed[0].error}")
    runs = tuple(LaunchedRun(arm.name, arm.config, f"{folder}/{arm.name}") for arm in arms)
    return Assignment(folder, runs, study, tuple((arm.name, arm.error) for arm in failed))
