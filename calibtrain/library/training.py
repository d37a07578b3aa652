"""Training from a program: `train`, `finetune` and `ablate`, and what was trained before.

Each calls the function that the command of its name calls. Ctrl-C (or a kernel's interrupt) saves
first and raises KeyboardInterrupt then; the same call goes on from there. A second one does not
wait: what was saved last stays.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibtrain.config import Config, StudyConfig
from calibtrain.errors import UserError
from calibtrain.library.configurations import Overrides, as_texts, file_of, load_config, load_study
from calibtrain.library.progress import Narrator, Shown, log, shown
from calibtrain.library.run import Run
from calibtrain.library.study import Study
from calibtrain.process.interruption import passed_on
from calibtrain.storage.places import place

if TYPE_CHECKING:
    from calibtrain.training.loop import Outcome


def train(config: Config | str | Path, folder: str | Path, *, progress: Shown = "auto") -> Run:
    """Trains a run with its evaluations, or goes on with the one in the folder.

    A finished run is not trained again: the same call returns it.

    Args:
        config: from `load_config`; or a ready-made name or a path, as that takes.
        folder: of the run; or gs://BUCKET/PATH.
        progress: a callback that is given each `Progress`; "auto" shows a bar, None nothing.

    Raises:
        UserError: for anything that the user can mend, such as a folder with another run; a
            NonFiniteError if it diverges.
        KeyboardInterrupt: after the run was saved.
    """
    from calibtrain.evaluation.while_training import train_run

    settings = config if isinstance(config, Config) else load_config(config)
    if (replicas := settings.train.replicas) > 1:
        raise UserError(
            f"train.replicas: {replicas} is not allowed in train, which returns one run; train the "
            "seeds one by one, or call ablate with a grid of seed"
        )
    path = place(folder)
    with passed_on(), shown(progress, path.name) as tell:
        narrator = Narrator(tell)
        outcome = train_run(settings, path, observer=lambda event: narrator("", event))
        _tell_stop(outcome, narrator)
    return Run(path)


def finetune(
    config: str | Path,
    folder: str | Path,
    overrides: Overrides = (),
    *,
    run: Run | str | Path | None = None,
    progress: Shown = "auto",
) -> Run:
    """Fine-tunes a run on prompts and answers or on preferences, or goes on with that.

    Args:
        config: a ready-made configuration, such as finetune/sft, or the path of a YAML file.
        folder: of the new run.
        overrides: settings that replace the file's.
        run: the run it starts from, in place of `finetune.run`.
        progress: a callback that is given each `Progress`; "auto" shows a bar, None nothing.

    Raises:
        UserError: for anything that the user can mend; a NonFiniteError if it diverges.
        KeyboardInterrupt: after the run was saved.
    """
    from calibtrain.finetuning import finetune as start
    from calibtrain.finetuning import resolve

    texts = as_texts(overrides)
    if run is not None:
        base = run.folder if isinstance(run, Run) else run
        texts += as_texts({"finetune.run": str(base)})
    path = place(folder)
    settings = resolve(file_of(config), texts, path)
    if (replicas := settings.train.replicas) > 1:
        raise UserError(
            f"train.replicas: {replicas} is not allowed in finetune, which returns one run; "
            "fine-tune the seeds one by one, or by one program: calibtrain finetune"
        )
    with passed_on(), shown(progress, path.name) as tell:
        narrator = Narrator(tell)
        outcome = start(settings, path, observer=lambda event: narrator("", event))
        _tell_stop(outcome, narrator)
    return Run(path)


def ablate(
    study: StudyConfig | str | Path,
    folder: str | Path,
    *,
    jobs: int = 1,
    progress: Shown = "auto",
) -> Study:
    """Runs the arms of a study that are not done, each in a process of its own.

    An arm that fails does not stop the others: `Study.errors` says why it did. The arms take the
    accelerator; this process stays on the CPU where it had not used one before.

    Args:
        study: from `load_study`; or a ready-made name or a path, as that takes.
        folder: of the study, on a disk; each arm has a run folder in it.
        jobs: how many arms run at once, each with its share of the cores.
        progress: a callback that is given each `Progress`; "auto" shows bars, None nothing.

    Raises:
        UserError: for a study that cannot be prepared.
        KeyboardInterrupt: after the arms that were running have saved.
    """
    from calibtrain.ablation import run_study

    if jobs < 1:
        raise UserError(f"jobs: {jobs} is not allowed; at least 1")
    settings = study if isinstance(study, StudyConfig) else load_study(study)
    path = place(folder)
    with passed_on(), shown(progress, path.name) as tell:
        found: Mapping[str, Any] = run_study(
            settings, path, jobs=jobs, command="calibtrain.ablate", observer=Narrator(tell)
        )
        for arm in found["arms"]:
            if arm["status"] == "failed":
                log.warning("arm %s failed: %s", arm["name"], arm["error"])
        if any(arm["status"] == "stopped" for arm in found["arms"]):
            log.warning("%s: stopped and saved; the same call goes on from there", path)
    return Study(path)


def open_run(folder: str | Path) -> Run:
    """Returns the run in a folder, whether it is done, stopped or being trained.

    Raises:
        UserError: where the folder holds no run.
    """
    return Run(folder)


def open_study(folder: str | Path) -> Study:
    """Returns the study in a folder.

    Raises:
        UserError: where the folder holds no study whose results are written.
    """
    return Study(folder)


def _tell_stop(outcome: "Outcome", narrator: Narrator) -> None:
    """Says that a signal stopped a run, and what is saved."""
    if outcome.status != "stopped":
        return
    narrator("", {"event": "finished", "status": "stopped"})
    saved = f"and saved at step {outcome.step}" if outcome.step else "before its first step"
    log.warning("%s: stopped %s; the same call goes on from there", outcome.summary["name"], saved)
