"""Curves for Weights & Biases. Line i of `metrics.jsonl` is row i of the run's history there, so
that no line can be there twice; charts have the training step as their axis.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.storage.disk import write_whole
from calibtrain.trackers.reliability_picture import draw_reliability

STATE = "calibtrain.json"
"""Says the identity of the run at Weights & Biases, and how many rows it has."""


class WeightsAndBiases:
    """Writes the curves of a run; see `child.Tracker`."""

    def __init__(self, about: Mapping[str, Any]):
        self._about, self._settings = about, about["settings"]
        self._folder = Path(about["folder"])
        self._run: Any = None
        self._picture: Any = None
        path = self._folder / STATE
        new = {"id": secrets.token_hex(4), "rows": 0, "final": False}
        self._state: dict[str, Any] = json.loads(path.read_text()) if path.exists() else new

    def begin(self, kept: Sequence[Mapping[str, Any]]) -> None:
        """Writes the kept lines that are not there yet."""
        for index, line in enumerate(kept):
            self.line(index, line)

    def line(self, index: int, line: Mapping[str, Any]) -> None:
        """Writes a line as a row, with the picture that was drawn for it."""
        if index < self._state["rows"]:  # a run that goes on writes the same line again
            self._picture = None
            return
        row = {name: value for name, value in line.items() if value is not None}
        if self._picture is not None:
            row["eval/reliability"], self._picture = self._picture, None
        self._open().log(row, step=index)
        self._keep(rows=index + 1)

    def measured(self, evaluation: Mapping[str, Any]) -> None:
        """Draws the reliability diagram that goes with the next line."""
        import wandb

        self._picture = wandb.Image(draw_reliability(evaluation))

    def final(self, evaluations: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes `final/CORPUS-SPLIT/FIGURE` as a last row, and so as the run's summary."""
        if self._state["final"]:
            return
        import wandb

        row: dict[str, Any] = {}
        for name, evaluation in evaluations.items():
            row["step"] = evaluation["step"]
            row |= {f"final/{name}/{key}": x for key, x in evaluation["figures"].items()}
            row[f"final/{name}/reliability"] = wandb.Image(draw_reliability(evaluation))
        if row:
            self._open().log(row, step=self._state["rows"])
            self._keep(final=True)

    def close(self) -> None:
        """Waits until everything is written, or sent."""
        if self._run is not None:
            self._run.finish()

    def _open(self) -> Any:
        if self._run is None:
            import wandb

            online = self._settings["mode"] == "online"
            self._run = wandb.init(
                project=self._settings["project"],
                entity=self._settings["entity"],
                mode=self._settings["mode"],
                group=self._settings["group"] or self._about["group"] or None,
                name=self._about["name"],
                id=self._state["id"],
                resume="allow" if online else None,
                dir=str(self._folder.parent),  # it makes a folder wandb there
                config=dict(self._about["config"]),
                settings=wandb.Settings(
                    silent=True, console="off", disable_git=True, save_code=False
                ),
            )
            self._run.define_metric("step")
            self._run.define_metric("*", step_metric="step")
        return self._run

    def _keep(self, **changes: Any) -> None:
        self._state.update(changes)
        write_whole(self._folder / STATE, json.dumps(self._state))
