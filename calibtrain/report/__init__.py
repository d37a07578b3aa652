"""The report: one self-contained HTML page for a run or a study. This room only reads files."""

import contextlib
import logging
import os
from pathlib import Path

from calibtrain.errors import UserError
from calibtrain.storage.places import in_bucket, place, put, reached

__all__ = ["write_report"]

PAGE = "report.html"

_log = logging.getLogger(__name__)


def write_report(folder: Path) -> Path:
    """Write `folder`/report.html from the files in `folder`, whole or not at all.

    Args:
        folder: a study (it holds ablation.json) or a run (it holds run.json).

    Returns:
        The path of the page.

    Raises:
        UserError: the folder is neither, is a run without any evaluation yet, holds a file that
            is missing or damaged, or cannot be written to.
    """
    folder = place(folder)
    target = folder / PAGE
    with reached(folder):
        page = _page(folder)
        if in_bucket(folder):
            put(target, page.encode())
            return target
    temporary = folder / f".{PAGE}.{os.getpid()}.tmp"
    try:
        temporary.write_text(page, encoding="utf-8")
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"{target} cannot be written: {error.strerror or error}; "
            "copy the folder to where you may write"
        ) from None
    return target


def _page(folder: Path) -> str:
    # Plotly is imported where a page is made, never by `import calibtrain.report`.
    from calibtrain.report import page, reading

    if (folder / "ablation.json").is_file():
        study = reading.read_study(folder)
        for arm in study.arms:
            if arm.run is not None and arm.run.lost_lines:
                _log.warning("%s: %s", folder / arm.name, arm.run.lost_lines)
        return page.study_page(study)
    if (folder / "run.json").is_file():
        run = reading.read_run(folder)
        if run.lost_lines:
            _log.warning("%s: %s", folder, run.lost_lines)
        if not run.evaluations and not run.measured:
            if run.status == "failed":
                raise UserError(
                    f"{folder} failed at step {run.step:,} of {run.steps:,}, before any "
                    f"evaluation: {run.error}"
                )
            if run.status == "imported":
                raise UserError(
                    f"{folder} has no evaluations yet: score it with `calibtrain evaluate {folder}`"
                )
            raise UserError(
                f"{folder} has no evaluations yet (it is {run.status} at step {run.step:,} of "
                f"{run.steps:,}): let it train on, or score it with `calibtrain evaluate {folder}`"
            )
        return page.run_page(run)
    if (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder / 'run.json'}: is missing; the command that made the run writes it again"
        )
    if not folder.is_dir():
        raise UserError(
            f"{folder} is no folder; a report is made from the folder of a run or study"
        )
    raise UserError(
        f"{folder} is neither a run (it has no run.json) nor a study (it has no ablation.json)"
    )
