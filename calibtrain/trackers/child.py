"""The process of a tracker: reads messages, and writes them by a library.

It ends when its pipe is closed, which a run does at its end and the system where the run is killed:
what a tracker was told is written in either case. One process at a time writes into a folder.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from calibtrain.storage.disk import locked
from calibtrain.storage.metrics import read_metrics
from calibtrain.storage.places import place

Line = Mapping[str, Any]
"""A line of `metrics.jsonl`: the step, and figures by name (None: not measured)."""


class Tracker(Protocol):
    """Writes the curves of a run by one library."""

    def begin(self, kept: Sequence[Line]) -> None:
        """Writes what is lacking of the lines that the run kept; drops what is beyond them."""

    def line(self, index: int, line: Line) -> None:
        """Writes the figures of the line with a number in `metrics.jsonl`."""

    def measured(self, evaluation: Mapping[str, Any]) -> None:
        """Takes the evaluation whose line comes next, for a picture beside that."""

    def final(self, evaluations: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes the final evaluations by corpus and split, unless they are there."""

    def close(self) -> None:
        """Writes everything."""


def make_tracker(about: Mapping[str, Any]) -> Tracker:
    """Returns the tracker of a run; imports its library."""
    if about["settings"]["kind"] == "tensorboard":
        from calibtrain.trackers.tensorboard import TensorBoard

        return TensorBoard(about)
    from calibtrain.trackers.weights_and_biases import WeightsAndBiases

    return WeightsAndBiases(about)


def follow(messages: Iterable[bytes]) -> None:
    """Writes what messages say, until there are no more."""
    stream = iter(messages)
    first = next(stream, b"")
    if not first.endswith(b"\n"):
        return
    about = json.loads(first)["begin"]
    folder = Path(about["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):  # waits for the tracker of a run that was killed just now
        tracker = make_tracker(about)
        count = about["lines"]
        try:
            kept = read_metrics(place(about["metrics"])) if count else []
            tracker.begin(list(islice(kept, count)))
            for text in stream:
                if not text.endswith(b"\n"):
                    break  # the run was killed while it wrote
                message = json.loads(text)
                if "line" in message:
                    tracker.line(count, message["line"])
                    count += 1
                elif "measured" in message:
                    tracker.measured(message["measured"])
                else:
                    tracker.final(message["final"])
        finally:
            tracker.close()


if __name__ == "__main__":
    follow(sys.stdin.buffer)
