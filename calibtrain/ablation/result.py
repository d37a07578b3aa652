"""Writes ablation.json: the results of a study's arms, and means with intervals over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import calibtrain
from calibtrain.config import StudyConfig
from calibtrain.runs.records import STUDY_FILE, ArmRecord, HeldFixed, StudyRecord
from calibtrain.runs.seeds import summarise
from calibtrain.storage.documents import FORMAT


def write_result(
    folder: Path,
    study: StudyConfig,
    command: str,
    fixed: Sequence[Mapping[str, Any]],
    arms: Sequence[ArmRecord],
) -> dict[str, Any]:
    """Writes ablation.json and returns its content."""
    record = StudyRecord(
        format=FORMAT,
        title=study.title,
        version=calibtrain.__version__,
        command=command,
        grid=study.grid,
        controls=study.controls.model_dump(mode="json"),
        held_fixed=[*(HeldFixed(**row) for row in fixed), *_evaluated_text(arms)],
        arms=list(arms),
        summary=summarise(arms),
    )
    record.write(folder / STUDY_FILE)
    return record.document()


def _evaluated_text(arms: Sequence[ArmRecord]) -> list[HeldFixed]:
    """Returns the rows of the table of controls that depend on the evaluations."""
    rows = []
    for name in dict.fromkeys(name for arm in arms for name in arm.evaluations):
        found = [arm.evaluations[name].numbers for arm in arms if name in arm.evaluations]
        raw = [figures["bytes"] for figures in found]
        rows.append(
            HeldFixed(
                quantity=f"Evaluated text, {name}",
                rule="every byte of the split once",
                unit="bytes",
                smallest=min(raw),
                largest=max(raw),
                held=min(raw) == max(raw),
            )
        )
    return rows
