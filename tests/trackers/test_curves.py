"""What trackers show is what `metrics.jsonl` holds: every step once, whatever happens to a run."""

import json
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import assert_same, call, tiny

from calibtrain.config import to_yaml
from calibtrain.storage.metrics import read_metrics
from calibtrain.trackers.reliability_picture import COLOUR, MARGIN, SIZE, draw_reliability
from calibtrain.trackers.tensorboard import TensorBoard, read_events, read_points

INTERRUPTED = Path(__file__).parent.parent / "training" / "interrupted.py"
BINS = [
    {"lower": 0.0, "upper": 0.5, "tokens": 30, "confidence": 0.3, "accuracy": 0.3},
    {"lower": 0.5, "upper": 1.0, "tokens": 10, "confidence": 0.8, "accuracy": 0.6},
]
MEASURED = {
    "corpus": "x",
    "split": "validation",
    "step": 4,
    "figures": {"ece": 0.05, "signed_gap": 0.05},
    "reliability": BINS,
}
LINES: list[dict[str, Any]] = [
    {"step": 2, "train/loss": 3.25},
    {"step": 4, "train/loss": 3.0},
    {"step": 4, "eval/nll": 2.9, "eval/brier": None},
    {"step": 6, "train/loss": 2.1},
    {"step": 8, "train/loss": 1.9},
    {"step": 8, "eval/nll": 1.8, "eval/brier": 0.1},
]


def single(value: float) -> float:
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def curves(lines: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """The curves that lines are, in 32 bits."""
    found: dict[str, dict[int, float]] = {}
    for line in lines:
        for name, value in line.items():
            if name != "step" and value is not None:
                found.setdefault(name, {})[line["step"]] = single(value)
    return found


def shown(folder: Path) -> dict[str, dict[int, float]]:
    """The curves in event files, without final evaluations and tags that lost every point."""
    points = read_points(folder)
    return {name: at for name, at in points.items() if at and not name.startswith("final/")}


def pictures(folder: Path) -> list[tuple[int, str]]:
    """The steps and tags of pictures, as TensorBoard shows them."""
    found: list[tuple[int, str]] = []
    for path in sorted(folder.glob("events.*")):
        for event in read_events(path):
            if event.HasField("session_log"):
                found = [each for each in found if each[0] < event.step]
            found += [(event.step, v.tag) for v in event.summary.value if v.HasField("image")]
    return found


def write(folder: Path, kept: int, until: int) -> None:
    """Writes lines as a run does that goes on with `kept` lines and is killed after `until`."""
    tracker = TensorBoard({"folder": str(folder), "config": {"seed": 0}})
    tracker.begin(LINES[:kept])
    for index in range(kept, until):
        if "eval/nll" in LINES[index]:
            tracker.measured({**MEASURED, "step": LINES[index]["step"]})
        tracker.line(index, LINES[index])
    tracker.close()


@pytest.mark.parametrize("kept", range(len(LINES)))
@pytest.mark.parametrize("cut", [0, 3, 25_000])
def test_a_run_that_goes_on_has_every_step_once(tmp_path: Path, kept: int, cut: int) -> None:
    """Whatever the run kept, and however much of the event file a crash of the machine took."""
    write(tmp_path, 0, 5)
    (first,) = tmp_path.iterdir()
    data = first.read_bytes()
    first.write_bytes(data[: len(data) - cut])
    write(tmp_path, kept, len(LINES))
    assert shown(tmp_path) == curves(LINES)
    drawn = [step for step, _ in pictures(tmp_path)]
    assert len(drawn) == len(set(drawn))


def test_a_run_that_is_done_writes_nothing_more(tmp_path: Path) -> None:
    write(tmp_path, 0, len(LINES))
    before = sorted(tmp_path.iterdir())
    write(tmp_path, len(LINES), len(LINES))
    assert sorted(tmp_path.iterdir()) == before


def test_a_calibrated_bin_lies_on_the_diagonal() -> None:
    picture = draw_reliability(MEASURED)

    def colour(x: float, y: float) -> tuple[int, ...]:
        inner = SIZE - 2 * MARGIN
        place = round(MARGIN + x * inner), round(SIZE - MARGIN - y * inner)
        return tuple(picture.getpixel(place))

    ink = tuple(int(COLOUR[i : i + 2], 16) for i in (1, 3, 5))
    assert colour(0.3, 0.3) == ink
    assert colour(0.8, 0.6) == ink
    assert colour(0.35, 0.5) == (255, 255, 255)


@pytest.mark.long
def test_a_tracker_that_is_added_later_shows_the_whole_run(
    finished_run: Path, tmp_path: Path
) -> None:
    """Trackers are not part of what a run is, so it goes on; it is not trained or drawn twice."""
    run, config = tmp_path / "run", tmp_path / "config.yaml"
    shutil.copytree(finished_run, run)
    config.write_text(to_yaml(tiny()))
    for _ in range(2):
        done = call("train", config, "trackers=[tensorboard]", "--run", run)
        assert done.returncode == 0, done.stderr
        assert "the tracker" not in done.stderr
    assert_same(run, finished_run)
    events = run / "tensorboard"
    assert shown(events) == curves(read_metrics(run / "metrics.jsonl"))
    points = read_points(events)
    for path in (run / "evaluations").glob("markov-*-24.json"):
        result = json.loads(path.read_text())
        name = f"final/markov-{result['split']}"
        assert points[f"{name}/ece"] == {24: single(result["ece"])}
        assert (24, f"{name}/reliability") in pictures(events)
    assert len(list(events.glob("events.*"))) == 1


def rows_of(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of history in a file of wandb's: records in blocks, as LevelDB writes its log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, whole = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part of one
            record, whole = Record.FromString(whole), b""
            if record.HasField("history"):
                items = {
                    "/".join(item.nested_key) or item.key: json.loads(item.value_json)
                    for item in record.history.item
                }
                yield record.history.step.num, items


@pytest.mark.long
@pytest.mark.parametrize("place", ["saved:3", "evaluation:4"])
def test_a_run_that_is_killed_has_every_step_once(
    tmp_path: Path, finished_run: Path, place: str
) -> None:
    run, config = tmp_path / "run", tmp_path / "config.yaml"
    trackers = [{"kind": "tensorboard"}, {"kind": "wandb", "mode": "offline"}]
    config.write_text(to_yaml(tiny(trackers=trackers)))
    killed = subprocess.run(
        [sys.executable, INTERRUPTED, config, run, place], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    done = call("train", config, "--run", run)
    assert done.returncode == 0, done.stderr
    assert "the tracker" not in done.stderr
    assert_same(run, finished_run)
    lines = read_metrics(run / "metrics.jsonl")
    assert shown(run / "tensorboard") == curves(lines)
    assert [at for at, tag in pictures(run / "tensorboard") if tag == "eval/reliability"] == [
        8,
        16,
        24,
    ]
    files = sorted((run / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({path.name for path in files}) == 1, "one identity"
    rows = sorted((row for path in files for row in rows_of(path)), key=lambda row: row[0])
    assert [index for index, _ in rows] == [*range(len(lines)), len(lines)]
    for (_, row), line in zip(rows, lines, strict=False):
        assert {name: row.get(name) for name in line} == dict(line)
    final: Mapping[str, Any] = rows[-1][1]
    for path in (run / "evaluations").glob("markov-*-24.json"):
        result = json.loads(path.read_text())
        assert final[f"final/markov-{result['split']}/ece"] == result["ece"]
