"""A guard on progress: starts of a run since its last new checkpoint, counted beside it.

An engine starts a run again whenever it ends too early, which pays for a crash at the same step as
often as the engine allows. So a run whose starts have not led to a new checkpoint is refused.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from calibtrain.errors import UserError
from calibtrain.parallel import hosts
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder
from calibtrain.storage.disk import disk_errors, write_whole
from calibtrain.storage.json_text import read_json
from calibtrain.storage.places import in_bucket, reached

STARTS_FILE = ".starts"
MOST_STARTS = 5
"""Starts without a new checkpoint after which a run is refused."""


def starts_file(folder: Path) -> Path:
    """Returns the file beside a run's checkpoints that counts its starts."""
    return folder / STARTS_FILE


def count_start(run: RunFolder) -> None:
    """Counts a start of a run that this process holds; every host must come here.

    Raises:
        UserError: where `MOST_STARTS` before this one led to no new checkpoint.
    """
    with hosts.together():
        if run.writes:
            _count(run)


def _count(run: RunFolder) -> None:
    path, step = starts_file(run.path), max(checkpoint.steps_saved(run.checkpoints), default=0)
    before = {}
    with reached(path), suppress(FileNotFoundError, ValueError):  # the first start, or cut short
        found = read_json(path)
        before = found if isinstance(found, dict) and found.get("step") == step else {}
    starts = before.get("starts", 0)
    starts = starts if isinstance(starts, int) else 0
    if starts >= MOST_STARTS:
        remove = f"gcloud storage rm {path}" if in_bucket(path) else f"rm {path}"
        raise UserError(
            f"{run.path}: {starts} starts in a row led to no new checkpoint (the last is of step "
            f"{step:,}); what they printed tells why. Once that is mended, allow new starts with: "
            f"{remove}"
        )
    write_whole(path, json.dumps({"step": step, "starts": starts + 1}))


@contextmanager
def counted(runs: Sequence[RunFolder]) -> Iterator[None]:
    """Forgets the starts of runs where training comes to an end, or is interrupted by a person."""
    try:
        yield
    except Exception:
        raise
    except BaseException:
        _forget(runs)
        raise
    _forget(runs)


def _forget(runs: Sequence[RunFolder]) -> None:
    for run in runs:
        if run.writes:
            forget_starts(run.path)


def forget_starts(folder: Path) -> None:
    """Forgets how often a run was started, as before a start that a person asks for."""
    with disk_errors(folder), suppress(FileNotFoundError):
        starts_file(folder).unlink()
