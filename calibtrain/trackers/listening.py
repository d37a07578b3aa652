"""Tells trackers what happens to a run.

`metrics.jsonl` is what a run's curves are; a tracker shows them. So a run that goes on first tells
its trackers which lines it kept, and they write what they lack of those.
"""

import dataclasses
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from calibtrain.config import Config
from calibtrain.errors import UserError
from calibtrain.metrics.quantities import QUANTITIES
from calibtrain.storage.places import absolute, in_bucket, place
from calibtrain.trackers.process import TrackerProcess
from calibtrain.training.begin import BegunRun

PACKAGES = {"tensorboard": ("tensorboardX", "pillow"), "wandb": ("wandb", "pillow")}
"""What a kind of tracker needs; the extra of calibtrain has the name of the kind."""


def require_trackers(runs: Sequence[tuple[Config, Path]]) -> None:
    """Checks before anything is prepared that the trackers of runs can be used.

    Args:
        runs: configurations and run folders.

    Raises:
        UserError: where a package is not installed, or a tracker has no folder on a disk.
    """
    for config, path in runs:
        for tracker in config.trackers:
            for package in PACKAGES[tracker.kind]:
                if not _is_installed(package):
                    raise UserError(
                        f"trackers: {tracker.kind} needs the package {package}; install it with: "
                        f"pip install 'calibtrain[{tracker.kind}]'"
                    )
            if in_bucket(place(tracker.folder) if tracker.folder else path):
                raise UserError(
                    f"trackers: {tracker.kind} writes files on a disk, not in a bucket; name a "
                    f"folder for them: trackers=[{{kind: {tracker.kind}, folder: curves}}]"
                )


def _is_installed(package: str) -> bool:
    try:  # not `find_spec`: a folder called wandb in the current one would be found
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@contextmanager
def tracked(runs: Sequence[BegunRun]) -> Iterator[list[BegunRun]]:
    """Yields runs whose trackers are told what happens to them, on the host that writes.

    A tracker never stops a run: one that fails, ends or does not keep up is named in a note, and is
    told nothing more.
    """
    with ExitStack() as listening:
        found = []
        for run in runs:
            if run.plan.config.trackers and run.folder.writes:
                tracking = listening.enter_context(_Tracking(run))
                run = dataclasses.replace(run, observer=tracking)
            found.append(run)
        yield found


class _Tracking:
    """The observer of a run, which also tells the run's trackers."""

    def __init__(self, run: BegunRun):
        self._run = run
        self._processes: list[TrackerProcess] = []

    def __enter__(self) -> "_Tracking":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.close()

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Tells the run's own observer, and then the trackers."""
        self._run.observer(event)
        if event["event"] == "start":
            self._begin()
            return
        for process in self._processes:
            try:
                if (message := _message(event)) is not None:
                    process.tell(message)
            except Exception as error:  # whatever it is, the run goes on
                process.give_up(f"could not be told of it ({type(error).__name__}: {error})")

    def _begin(self) -> None:
        folder, config = self._run.folder, self._run.plan.config
        path = absolute(folder.path)
        kept = len(folder.read_metrics())
        for tracker in config.trackers:
            inside = path if tracker.folder is None else place(tracker.folder) / path.name
            process = TrackerProcess(tracker.kind, self._note)
            self._processes.append(process)
            process.tell(
                {
                    "begin": {
                        "settings": tracker.model_dump(mode="json"),
                        "folder": str(inside / tracker.kind),
                        "name": path.name,
                        "group": path.parent.name,
                        "config": config.model_dump(mode="json", exclude={"trackers"}),
                        "metrics": str(folder.metrics),
                        "lines": kept,
                    }
                }
            )

    def _note(self, text: str) -> None:
        self._run.observer({"event": "note", "text": f"{self._run.folder.path}: {text}"})


def _message(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns what trackers are told of an event; None where it does not concern them."""
    match event["event"]:
        case "metrics":
            return {"line": event["line"]}
        case "measured":
            return {"measured": _evaluation(event["result"])}
        case "final":
            results = event["results"]
            return {"final": {name: _evaluation(results[name]) for name in results}}
    return None


def _evaluation(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what trackers show of an evaluation: its figures, and its reliability in bins."""
    figures = {name: result[name] for name in QUANTITIES if isinstance(result.get(name), float)}
    about = {name: result[name] for name in ("corpus", "split", "step")}
    return {**about, "figures": figures, "reliability": result["reliability"]}
