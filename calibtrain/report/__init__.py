"""The report: one self-contained HTML page for a run or a study, made from files only."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import calibtrain
from calibtrain.errors import UserError
from calibtrain.runs import results
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.records import RUN_FILE, STUDY_FILE, RunRecord
from calibtrain.storage.disk import write_whole
from calibtrain.storage.places import place, reached

__all__ = ["write_consistency_report", "write_evaluation_report", "write_report"]

PAGE = "report.html"

_log = logging.getLogger(__name__)


def write_report(folder: Path) -> Path:
    """Writes `folder`/report.html from the files in `folder`, whole or not at all.

    Args:
        folder: a study (with ablation.json) or a run (with run.json).

    Returns:
        The path of the page.

    Raises:
        UserError: where the folder is neither, is a run without an evaluation, has a missing or
            damaged file, or cannot be written to.
    """
    folder = place(folder)
    target = folder / PAGE
    with reached(folder):
        page = _page(folder)
    write_whole(target, page)
    return target


def write_evaluation_report(evaluation: EvaluationRecord, target: Path) -> Path:
    """Writes a page on a single evaluation, such as the predictions of any model.

    Args:
        evaluation: the evaluation.
        target: path of the page.

    Returns:
        The path of the page.

    Raises:
        UserError: where it cannot be written.
    """
    from calibtrain.report.evaluation_page import evaluation_page

    write_whole(target, evaluation_page(evaluation))
    return target


def write_consistency_report(
    document: Mapping[str, Any], target: Path, *, prompt: str | None = None
) -> Path:
    """Writes a page on the samples of one prompt.

    Args:
        document: what `calibtrain consistency --json` prints.
        target: path of the page.
        prompt: what the samples continue.

    Returns:
        The path of the page.

    Raises:
        UserError: where it cannot be written.
    """
    from calibtrain.report.consistency_page import consistency_page

    write_whole(target, consistency_page(document, prompt, calibtrain.__version__))
    return target


def _page(folder: Path) -> str:
    # imported here, so that `import calibtrain.report` does not import Plotly
    from calibtrain.report.run_page import run_page
    from calibtrain.report.study_page import study_page

    if (folder / STUDY_FILE).is_file():
        study = results.read_study(folder)
        for arm in study.arms:
            if arm.run is not None and arm.run.lost_lines:
                _log.warning("%s: %s", folder / arm.record.name, arm.run.lost_lines)
        return study_page(study, str(folder))
    if (folder / RUN_FILE).is_file():
        run = results.read_run(folder)
        if run.lost_lines:
            _log.warning("%s: %s", folder, run.lost_lines)
        if not run.evaluations and not run.measured:
            raise UserError(_nothing_yet(folder, run.record))
        return run_page(run)
    if (folder / "config.yaml").is_file():
        raise UserError(
            f"{folder / 'run.json'}: is missing; the command that made the run writes it again"
        )
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder; a report is made from the folder of a run or study"
        )
    raise UserError(
        f"{folder} is neither a run (it has no {RUN_FILE}) nor a study (it has no {STUDY_FILE})"
    )


def _nothing_yet(folder: Path, run: RunRecord) -> str:
    """Returns why a run has nothing to report, and what to do."""
    place = f"step {run.step:,} of {run.steps:,}"
    score = f"score it with `calibtrain evaluate {folder}`"
    if run.status == "failed":
        return f"{folder} failed at {place}, before any evaluation: {run.error}"
    if run.status == "imported":
        return f"{folder} has no evaluations yet: {score}"
    return (
        f"{folder} has no evaluations yet (it is {run.status} at {place}): let it train on, or "
        f"{score}"
    )
