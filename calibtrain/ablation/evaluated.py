"""Evaluates every finished arm of a study: `calibtrain evaluate STUDY`.

Each arm is evaluated as by itself. Bytes or words of the test split then belong to what the study
measures: its study.yaml says so, and ablation.json is written again as `calibtrain ablate` does.
"""

import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from calibtrain.ablation.controls import apply_controls, held_fixed
from calibtrain.ablation.records import describe_arm, result_of
from calibtrain.ablation.result import write_result
from calibtrain.ablation.runner import share_cores
from calibtrain.config import StudyConfig, load_study, resolved_yaml, with_value
from calibtrain.errors import UserError
from calibtrain.evaluation.bytes import Progress
from calibtrain.evaluation.result import Evaluation
from calibtrain.generation.next_byte import Beam
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.records import STUDY_FILE, StudyRecord
from calibtrain.storage.disk import cache_directory, write_whole

PARTS = 10_000
"""What progress counts of each arm."""


def evaluate_study(
    folder: Path,
    evaluate: Callable[..., Evaluation],
    *,
    jobs: int = 1,
    cache: Path | None = None,
    progress: Progress = lambda done, total: None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Evaluation]:
    """Evaluates the finished arms of a study, and writes its ablation.json again.

    Args:
        folder: of the study.
        evaluate: evaluates the run in a folder, as `evaluate_run` or `evaluate_run_on_text` does;
            with several jobs, it must be a function that can be pickled.
        jobs: arms that are evaluated side by side, in a process each.
        cache: where prepared data is kept.
        progress: is called with how much of all arms is done, and of how much.
        say: is told in words what the user must know.

    Returns:
        What was found, by the name of the arm.

    Raises:
        UserError: where no arm is finished, and as `evaluate` does.
    """
    record = StudyRecord.read(folder / STUDY_FILE)
    done = [arm for arm in record.arms if arm.status == "done"]
    if not done:
        raise UserError(f"{folder}: has no finished arm; run: calibtrain ablate")
    for arm in record.arms:
        if arm.status != "done":
            say(f"note: arm {arm.name} is {arm.status}, and is left out")
    paths, jobs = [folder / arm.folder for arm in done], min(jobs, len(done))
    with RunFolder(folder).locked():
        if jobs == 1:
            each = _one_by_one(paths, evaluate, progress)
        else:
            each = _side_by_side(paths, evaluate, jobs, progress)
        found = {arm.name: evaluation for arm, evaluation in zip(done, each, strict=True)}
        study = _measuring(load_study(folder / "study.yaml"), next(iter(found.values())).about)
        write_whole(folder / "study.yaml", resolved_yaml(study))
        _write_again(folder, study, record, cache or cache_directory())
    return found


def _one_by_one(
    paths: Sequence[Path], evaluate: Callable[..., Evaluation], progress: Progress
) -> list[Evaluation]:
    """Evaluates runs in this process."""
    found = []
    for number, path in enumerate(paths):

        def tell(part: int, parts: int, before: int = number * PARTS) -> None:
            progress(before + part * PARTS // max(1, parts), len(paths) * PARTS)

        tell(0, 1)
        found.append(evaluate(path, progress=tell))
    return found


def _side_by_side(
    paths: Sequence[Path],
    evaluate: Callable[..., Evaluation],
    jobs: int,
    progress: Progress,
) -> list[Evaluation]:
    """Evaluates runs in some processes, each with its share of the cores."""
    # a command that a signal ends has no time to count its semaphores, of which Python then warns
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker")
    context = multiprocessing.get_context("spawn")
    told, slots = context.SimpleQueue(), context.SimpleQueue()
    for slot in range(jobs):
        slots.put(slot)
    pool = ProcessPoolExecutor(jobs, context, _begin, (told, slots, jobs))
    parts = dict.fromkeys(range(len(paths)), 0)
    try:
        futures = [pool.submit(_evaluate, evaluate, path, n) for n, path in enumerate(paths)]
        while not all(future.done() for future in futures):
            wait(futures, timeout=0.2, return_when=FIRST_EXCEPTION)
            while not told.empty():
                number, part = told.get()
                parts[number] = part
            progress(sum(parts.values()), len(paths) * PARTS)
            for future in futures:
                if future.done():
                    future.result()
        return [future.result() for future in futures]
    except BaseException:
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


_told: Any = None
"""In a process of `_side_by_side`: where it says how far it is."""


def _begin(told: Any, slots: Any, jobs: int) -> None:
    global _told
    _told = told
    share_cores(os.getpid(), slots.get(), jobs)


def _evaluate(evaluate: Callable[..., Evaluation], path: Path, number: int) -> Evaluation:
    said = 0.0

    def tell(part: int, parts: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= 0.5 or part == parts:
            said = now
            _told.put((number, part * PARTS // max(1, parts)))

    return evaluate(path, progress=tell)


def _measuring(study: StudyConfig, about: Mapping[str, Any]) -> StudyConfig:
    """Returns the study with events of text among what it measures, if they are of that kind."""
    event = about["event"]
    settings = study.base.evaluation
    beam = Beam()
    how = (about.get("beam"), about.get("ratio"), about["temperature"])
    usual = how == (beam.width, beam.ratio, 1.0)
    own = about["split"] == "test" and about["corpus"] == study.base.corpus.name
    if event == "token" or not (usual and own and "test" in settings.final_splits):
        return study
    events = dict.fromkeys((*settings.events, event))
    changes = {
        "evaluation.events": list(events),
        f"evaluation.event_bytes.{event}": about["limit"],
    }
    return study.model_copy(update={"base": with_value(study.base, changes)})


def _write_again(folder: Path, study: StudyConfig, record: StudyRecord, cache: Path) -> None:
    arms, impossible = apply_controls(study, cache)
    results = {arm.name: result_of(arm, folder) for arm in arms}
    results |= {arm.name: describe_arm(arm, "failed", arm.error) for arm in impossible}
    before = {arm.name: arm for arm in record.arms}
    for name, arm in results.items():  # why an arm failed is known to the process that saw it
        if arm.status != "done" and name in before and before[name].status != "done":
            results[name] = before[name]
    ordered = [results[arm.name] for arm in record.arms if arm.name in results]
    write_result(folder, study, record.command, held_fixed(study, arms), ordered)
