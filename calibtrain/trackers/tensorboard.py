"""Curves for TensorBoard, as event files. An event file is never changed: a run that goes on writes
another, which says from which step on it takes the place of those before it.
"""

import io
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain.trackers.reliability_picture import draw_reliability

EVENTS = "events.out.tfevents.*"
Points = dict[str, dict[int, float]]
"""Values by tag and step."""


class TensorBoard:
    """Writes the curves of a run; see `child.Tracker`."""

    def __init__(self, about: Mapping[str, Any]):
        self._folder = Path(about["folder"])
        self._config = about["config"]
        self._writer: Any = None
        self._measured: Mapping[str, Any] | None = None
        self._there: Points = {}
        self._from_step: int | None = None

    def begin(self, kept: Sequence[Mapping[str, Any]]) -> None:
        """Writes the kept lines from the first on that the event files do not hold."""
        self._there = read_points(self._folder)
        wanted: dict[int, dict[str, float]] = {}
        for line in kept:
            wanted.setdefault(line["step"], {}).update(_scalars(line))
        found: dict[int, dict[str, float]] = {}
        for name, points in self._there.items():
            for step, value in points.items():
                if not name.startswith("final/"):
                    found.setdefault(step, {})[name] = value
        lacking = [step for step in wanted if wanted[step] != found.get(step)]
        first = min(lacking, default=max(wanted, default=-1) + 1)
        if any(step >= first for points in self._there.values() for step in points):
            self._from_step = first
        for line in kept:
            if line["step"] >= first:
                self._write(line)

    def line(self, index: int, line: Mapping[str, Any]) -> None:
        """Writes the figures of a line at its step."""
        self._write(line)
        if self._measured is not None:
            self._picture("eval/reliability", self._measured)
            self._measured = None
        self._open().flush()

    def measured(self, evaluation: Mapping[str, Any]) -> None:
        """Keeps the evaluation whose reliability diagram goes with the next line."""
        self._measured = evaluation

    def final(self, evaluations: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes `final/CORPUS-SPLIT/FIGURE` at the last step, and the reliability diagrams."""
        for name, evaluation in evaluations.items():
            step = evaluation["step"]
            beginning = f"final/{_tag(name)}"
            figures = {f"{beginning}/{key}": x for key, x in evaluation["figures"].items()}
            kept = self._from_step is None or step < self._from_step
            if kept and all(step in self._there.get(tag, {}) for tag in figures):
                continue
            for tag, value in figures.items():
                self._open().add_scalar(tag, value, step)
            self._picture(f"{beginning}/reliability", evaluation)

    def close(self) -> None:
        """Writes everything to the disk."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        for tag, value in _scalars(line).items():
            self._open().add_scalar(tag, value, line["step"])

    def _open(self) -> Any:
        if self._writer is None:
            from tensorboardX import SummaryWriter

            before = len(list(self._folder.glob(EVENTS)))
            suffix = f".{before}" if before else ""  # or one of the same second would be replaced
            self._writer = SummaryWriter(
                str(self._folder), purge_step=self._from_step, filename_suffix=suffix
            )
            if not self._there:
                text = json.dumps(self._config, indent=1, ensure_ascii=False)
                self._writer.add_text("configuration", f"```json\n{text}\n```", 0)
        return self._writer

    def _picture(self, tag: str, evaluation: Mapping[str, Any]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        picture, buffer = draw_reliability(evaluation), io.BytesIO()
        picture.save(buffer, format="PNG")
        image = Summary.Image(
            height=picture.height,
            width=picture.width,
            colorspace=3,
            encoded_image_string=buffer.getvalue(),
        )
        summary = Summary(value=[Summary.Value(tag=tag, image=image)])
        self._open().file_writer.add_summary(summary, evaluation["step"])


def read_points(folder: Path) -> Points:
    """Returns the scalars that event files of a folder hold, as TensorBoard shows them.

    A file that goes on from a step replaces what earlier files hold from there on.
    """
    points: Points = {}
    for path in sorted(folder.glob(EVENTS)):
        for event in read_events(path):
            if event.HasField("session_log") and event.session_log.status == 1:  # START
                for tag in points:
                    points[tag] = {s: x for s, x in points[tag].items() if s < event.step}
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    points.setdefault(value.tag, {})[event.step] = value.simple_value
    return points


def read_events(path: Path) -> Iterator[Any]:
    """Yields the whole events of a file; a last one that was cut off is left out."""
    from tensorboardX.proto.event_pb2 import Event

    data, place = path.read_bytes(), 0
    while place + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        if place + 16 + length > len(data):
            return
        yield Event.FromString(data[place + 12 : place + 12 + length])
        place += 16 + length


def _scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Returns the figures of a line by tag, in the 32 bits that event files have."""
    return {
        _tag(name): struct.unpack("<f", struct.pack("<f", value))[0]
        for name, value in line.items()
        if name != "step" and value is not None
    }


def _tag(name: str) -> str:
    return re.sub(r"[^-/\w.]", "_", name)
