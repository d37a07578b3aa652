"""Writes ablation.json: the results of a study's arms, and means with intervals over seeds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import calibtrain
from calibtrain.config import StudyConfig
from calibtrain.runs.records import STUDY_FILE, ArmRecord, HeldFixed, StudyRecord
from calibtrain.runs.seeds import differences, summarise
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
        differences=differences(arms),
    )
    record.write(folder / STUDY_FILE)
    return record.document()


def _evaluated_text(arms: Sequence[ArmRecord]) -> list[HeldFixed]:
    """Returns the rows of the table of controls that depend on the evaluations."""
    rows = []
    for name in dict.fromkeys(name for arm in arms for name in arm.evaluations):
        found = [arm.evaluations[name] for arm in arms if name in arm.evaluations]
        raw = [figures.numbers["bytes"] for figures in found]
        samples = [figures.sample for figures in found]
        # files of earlier versions do not say which text they scored
        hashes = {None if sample is None else sample.text_hash for sample in samples}
        whole = all(sample is None or sample.bytes == sample.of_bytes for sample in samples)
        rows.append(
            HeldFixed(
                quantity=f"Evaluated text, {name}",
                rule="every byte of the split once" if whole else "the very same bytes in all arms",
                unit="bytes",
                smallest=min(raw),
                largest=max(raw),
                held=min(raw) == max(raw) and len(hashes) == 1,
            )
        )
    return rows
