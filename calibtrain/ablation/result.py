"""What a study found: its arms' results, and means with intervals over seeds, as ablation.json."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import calibtrain
from calibtrain.config import StudyConfig
from calibtrain.metrics.intervals import student_half_width
from calibtrain.storage.disk import write_whole

SEED = "seed"


def summarise(arms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and interval over the seeds of every combination of the other settings.

    Args:
        arms: as in ablation.json; only those with evaluations count.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for arm in arms:
        if arm["evaluations"]:
            rest = {key: value for key, value in arm["settings"].items() if key != SEED}
            groups.setdefault(json.dumps(rest, sort_keys=True), []).append(arm)
    rows = []
    for members in groups.values():
        rest = {key: value for key, value in members[0]["settings"].items() if key != SEED}
        for evaluation in members[0]["evaluations"]:
            found = [arm["evaluations"].get(evaluation) for arm in members]
            found = [figures for figures in found if figures]
            names = [  # a figure that a seed does not have (AUROC where all is wrong) has no mean
                name
                for name in found[0]
                if all(isinstance(figures.get(name), int | float) for figures in found)
            ]
            columns = {name: [float(figures[name]) for figures in found] for name in names}
            rows.append(
                {
                    "settings": rest,
                    "vocab_size": members[0]["vocab_size"],
                    "seeds": len(found),
                    "evaluation": evaluation,
                    "mean": {name: sum(c) / len(c) for name, c in columns.items()},
                    "half_width": {name: student_half_width(c) for name, c in columns.items()},
                    "signatures": _signatures(found),
                }
            )
    return rows


def _signatures(found: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """How the figures of a mean were made: one signature each, unless unlike figures were mixed."""
    texts: dict[str, dict[str, None]] = {}
    for figures in found:
        for name, text in figures.get("signatures", {}).items():
            texts.setdefault(name, {})[text] = None
    return {name: list(distinct) for name, distinct in texts.items()}


def write_result(
    folder: Path,
    study: StudyConfig,
    command: str,
    fixed: Sequence[Mapping[str, Any]],
    arms: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Write ablation.json and return what it holds."""
    result = {
        "format": 1,
        "title": study.title,
        "version": calibtrain.__version__,
        "command": command,
        "grid": study.grid,
        "controls": study.controls.model_dump(mode="json"),
        "held_fixed": [*fixed, *_evaluated_text(arms)],
        "arms": list(arms),
        "summary": summarise(arms),
    }
    write_whole(folder / "ablation.json", json.dumps(result, indent=1) + "\n")
    return result


def _evaluated_text(arms: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the table of controls that only the evaluations can tell."""
    rows = []
    names = dict.fromkeys(name for arm in arms for name in arm["evaluations"])
    for name in names:
        raw = [arm["evaluations"][name]["bytes"] for arm in arms if name in arm["evaluations"]]
        rows.append(
            {
                "quantity": f"Evaluated text, {name}",
                "rule": "every byte of the split once",
                "unit": "bytes",
                "smallest": min(raw),
                "largest": max(raw),
                "held": min(raw) == max(raw),
            }
        )
    return rows
