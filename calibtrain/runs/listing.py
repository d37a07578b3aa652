"""The runs below a folder at a glance: `calibtrain runs`. Only records are read, without JAX.

A run that is damaged is an entry that says so; the others are listed all the same.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.runs.evaluation_records import EvaluationRecord
from calibtrain.runs.records import RUN_FILE, STUDY_FILE, ArmRecord, RunRecord, StudyRecord
from calibtrain.storage.bucket_lock import is_fresh
from calibtrain.storage.disk_lock import is_held_to_write
from calibtrain.storage.json_text import parse_json
from calibtrain.storage.places import in_bucket, reached

CONFIG_FILE = "config.yaml"
LOCK_FILE = ".lock"
_NAMED = re.compile(r"-(train|validation|test)-(\d+)")
_OF_EVENT = re.compile(r"-(byte|word)(?:_beam\d+)?(?:_ratio[\d.e-]+)?$")
_TAIL = 2**16


@dataclass(frozen=True)
class RunEntry:
    """One run, as far as it can be read.

    Attributes:
        path: its folder.
        state: running, stopped, failed, done, imported; damaged where run.json cannot be read.
        alive: whether a process on this machine, or for a bucket on any, is writing it.
        note: what else there is to say of the state, such as the error of a run that failed.
        step: steps trained; of so many `steps`.
        vocab_size: entries of its vocabulary.
        evaluation: its latest final evaluation.
        changed: when run.json was last written.
    """

    path: Path
    state: str
    alive: bool = False
    note: str = ""
    step: int | None = None
    steps: int | None = None
    vocab_size: int | None = None
    evaluation: EvaluationRecord | None = None
    changed: datetime | None = None


def list_runs(folder: Path, events: str = "token") -> list[RunEntry]:
    """Returns every run and every arm of a study in a folder and below it, in the order of names.

    Args:
        folder: on a disk or in a bucket; may be a run itself.
        events: the event space of the evaluations that are looked for: token, byte, word.

    Raises:
        UserError: for a folder that is not there or cannot be read.
    """
    with reached(folder):
        if not folder.is_dir():
            raise UserError(f"{folder}: is not a folder; name one that holds runs")
        return list(_below(folder, events))


def arms_of(folder: Path) -> list[str]:
    """Returns the names of the runs right in a folder: the arms of a study, or seeds of a run."""
    try:
        with reached(folder):
            return [each.name for each in _subfolders(folder) if (each / CONFIG_FILE).exists()]
    except (OSError, UserError):
        return []


def finished_runs(folder: Path) -> set[str]:
    """Returns the names of the runs right in a folder that are done; "." for the folder itself."""
    found = {".": folder, **{name: folder / name for name in arms_of(folder)}}
    return {name for name, path in found.items() if _is_done(path)}


def _is_done(folder: Path) -> bool:
    try:
        with reached(folder):
            return RunRecord.read(folder / RUN_FILE).status == "done"
    except UserError:
        return False


def _below(folder: Path, events: str) -> Iterator[RunEntry]:
    try:
        holds_run = (folder / CONFIG_FILE).is_file() or (folder / RUN_FILE).is_file()
    except PermissionError as error:
        yield RunEntry(folder, "damaged", note=f"may not be read: {error.strerror}")
        return
    if holds_run:
        yield _entry(folder, events)
        return
    inside = _subfolders(folder)
    never_begun = {arm.name: arm for arm in _failed_arms(folder)}
    for each in inside:
        never_begun.pop(each.name, None)
        yield from _below(each, events)
    for arm in never_begun.values():
        note = arm.error or ""
        yield RunEntry(folder / arm.folder, arm.status, note=note, vocab_size=arm.vocab_size)


def _subfolders(folder: Path) -> list[Path]:
    """Returns the folders in a folder, but hidden ones and links, which might lead in a circle."""
    try:
        found = [each for each in folder.iterdir() if not each.name.startswith(".")]
    except PermissionError:
        return []
    disk = not in_bucket(folder)
    return sorted(
        (each for each in found if each.is_dir() and not (disk and each.is_symlink())),
        key=lambda each: each.name,
    )


def _failed_arms(folder: Path) -> list[ArmRecord]:
    """Returns the arms of a study that did not finish, which may have left no folder."""
    if not (folder / STUDY_FILE).is_file():
        return []
    try:
        return [arm for arm in StudyRecord.read(folder / STUDY_FILE).arms if arm.status != "done"]
    except UserError:
        return []  # its arms say how they are themselves


def _entry(folder: Path, events: str) -> RunEntry:
    alive = _is_written(folder)
    try:
        record = RunRecord.read(folder / RUN_FILE)
    except UserError as error:
        if alive and not (folder / RUN_FILE).exists():
            return RunEntry(folder, "running", alive=True, note="has just begun")
        return RunEntry(folder, "damaged", alive=alive, note=str(error))
    state, note, step = record.status, record.error or "", record.step
    if state == "running":
        step = max(step, _last_step(folder / "metrics.jsonl"))
        if not alive:
            note = "its process is gone; the command that began it goes on"
    evaluation = None
    try:
        evaluation = _final_evaluation(folder / "evaluations", record, events)
    except UserError as error:
        note = "; ".join(filter(None, (note, str(error))))
    return RunEntry(
        folder,
        state,
        alive=alive,
        note=note,
        step=step,
        steps=record.steps,
        vocab_size=record.tokenizer.vocab_size,
        evaluation=evaluation,
        changed=_changed(folder / RUN_FILE),
    )


def _is_written(folder: Path) -> bool:
    """Returns whether a process holds a run to write it."""
    lock = folder / LOCK_FILE
    return is_fresh(lock) if in_bucket(folder) else is_held_to_write(lock)


def _last_step(metrics: Path) -> int:
    """Returns the step of the last whole line of metrics.jsonl; 0 where there is none."""
    try:
        with metrics.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            lines = file.read().split(b"\n")
        return int(parse_json(lines[-2])["step"])
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def _final_evaluation(folder: Path, record: RunRecord, events: str) -> EvaluationRecord | None:
    """Returns a run's latest evaluation of events: of the test split if there is one.

    Its own corpus comes before others, no temperature before one, and the text that the run itself
    evaluates before others, whose names are longer. Which files are read is decided by their names,
    as a run has many.
    """
    if not folder.is_dir():
        return None
    ranked: dict[tuple[bool, int], list[Path]] = {}
    for path in folder.glob("*.json"):
        named, of = _NAMED.search(path.stem), _OF_EVENT.search(path.stem)
        if named and (of[1] if of else "token") == events:
            rank = named[1] != "test", -int(named[2])
            ranked.setdefault(rank, []).append(path)
    if not ranked:
        return None
    found = [(path, EvaluationRecord.read(path)) for path in sorted(ranked[min(ranked)])]

    def order(each: tuple[Path, EvaluationRecord]) -> tuple[Any, ...]:
        path, evaluation = each
        other = evaluation.corpus != record.corpus.name
        return other, evaluation.tempered != "", len(path.stem), -evaluation.bytes

    return min(found, key=order)[1]


def _changed(path: Path) -> datetime:
    stat: Any = path.stat()
    seconds = stat.mtime if in_bucket(path) else stat.st_mtime
    return datetime.fromtimestamp(seconds).astimezone()
