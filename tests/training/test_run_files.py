"""What is read of a run folder: one reader of run.json; and runs that may only be read."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny

from calibtrain.config import to_yaml
from calibtrain.errors import UserError
from calibtrain.evaluation import evaluate_run, train_run
from calibtrain.finetuning import resolve
from calibtrain.interchange import export_run
from calibtrain.posthoc import fit_temperature_head
from calibtrain.posthoc.listing import describe_heads
from calibtrain.report import write_report
from calibtrain.runs.folder import RunFolder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, finished_run: Path) -> Path:
    return Path(shutil.copytree(finished_run, tmp_path_factory.mktemp("finished") / "run"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def finetuned(run: Path) -> Any:
    lines = [json.dumps({"prompt": f"say {number}", "response": "b"}) for number in range(30)]
    (run.parent / "examples.jsonl").write_text("\n".join(lines) + "\n")
    tree = {
        "finetune": {
            "run": str(run),
            "paths": [str(run.parent / "examples.jsonl")],
            "objective": "sft",
        }
    }
    (run.parent / "sft.yaml").write_text(json.dumps(tree))
    return resolve(run.parent / "sft.yaml")


COMMANDS: dict[str, Callable[[Path], Any]] = {
    "train": lambda run: train_run(tiny(), run),
    "evaluate": lambda run: evaluate_run(run, limit=300),
    "export": lambda run: export_run(run, run.parent / "exported"),
    "temperature": lambda run: fit_temperature_head(run, "global", limit=300),
    "list": describe_heads,
    "report": write_report,
    "finetune": finetuned,
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("form", ["2", '"1"', "true", "null", "[1]"])
def test_a_format_that_is_not_known_is_refused_by_every_command(
    run: Path, command: str, form: str
) -> None:
    text = (run / "run.json").read_text()
    (run / "run.json").write_text(text.replace('"format": 1', f'"format": {form}'))
    before = sorted(run.rglob("*"))
    with pytest.raises(UserError, match=r"run\.json: has format .*; this version reads format 1"):
        COMMANDS[command](run)
    assert set(run.rglob("*")) - set(before) <= {run / ".lock"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": 1, "format": 1}',
        '{"seconds": 3}',
        '{"format": 1, "status": "done"}',
        "[" * 100_000,
        '{"format": 1, "seconds": NaN}',
        f'{{"format": 1, "seconds": {10**310}}}',
    ],
)
def test_a_damaged_run_json_is_said_by_every_command(run: Path, command: str, text: str) -> None:
    (run / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json: is damaged \(.*\); remove it, and ") as error:
        COMMANDS[command](run)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("command", ["export", "finetune", "report"])
def test_a_missing_run_json_is_said_where_it_is_needed(run: Path, command: str) -> None:
    (run / "run.json").unlink()
    with pytest.raises(UserError, match=r"run\.json: is missing; .*command that made the run"):
        COMMANDS[command](run)


def test_a_run_without_run_json_says_what_is_not_counted(run: Path) -> None:
    (run / "run.json").unlink()
    told: list[Any] = []
    assert train_run(tiny(), run, observer=told.append).status == "done"
    assert [e["text"] for e in told if e["event"] == "note"] == [
        f"{run / 'run.json'}: is missing; seconds are counted from here on"
    ]


def test_a_run_without_run_json_is_measured_with_a_note(run: Path) -> None:
    wanted = evaluate_run(run, limit=300).results
    (run / "run.json").unlink()
    said: list[str] = []
    assert evaluate_run(run, limit=300, say=said.append).results == wanted
    assert said == [f"note: {run / 'run.json'}: is missing; what is measured does not depend on it"]


def test_an_imported_run_is_not_made_again_by_training(run: Path) -> None:
    (run / "checkpoints" / "6").rename(run / "checkpoints" / "0")
    (run / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"remove it, and import the model again, with another --r"):
        RunFolder(run).read_summary()


@pytest.mark.parametrize("line", ['{"step": 5, "train/loss": NaN}', "3", '{"step": 1e999}'])
def test_a_line_of_metrics_that_holds_no_numbers_is_named(run: Path, line: str) -> None:
    path = run / "metrics.jsonl"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 1 is not a JSON object with a step"):
        RunFolder(run).read_metrics()


def test_an_imported_run_that_lost_run_json_is_not_trained_over(run: Path) -> None:
    (run / "run.json").unlink()
    (run / "checkpoints" / "6").rename(run / "checkpoints" / "0")
    with pytest.raises(UserError, match="holds an imported model"):
        train_run(tiny(), run)


def test_an_evaluation_of_another_format_is_refused(run: Path) -> None:
    path = run / "evaluations" / "markov-test-24.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(UserError, match=r"markov-test-24\.json: has format 7; this version"):
        train_run(tiny(), run)


@pytest.fixture
def read_only(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on a disk that takes no writes, as the system says it."""
    opened, made = os.open, os.mkdir

    def refuse(path: Any) -> None:
        if not isinstance(path, int) and str(path).startswith(str(run)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def open_(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refuse(path)
        return opened(path, flags, *more, **options)

    def mkdir(path: Any, *more: Any, **options: Any) -> None:
        if not os.path.isdir(path):
            refuse(path)
        made(path, *more, **options)

    import io

    builtin = io.open

    def io_open(file: Any, mode: str = "r", *more: Any, **options: Any) -> Any:
        if set(mode) & set("wax+"):
            refuse(file)
        return builtin(file, mode, *more, **options)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(io, "open", io_open)
    return run


@pytest.mark.parametrize("lock", [True, False])
def test_a_run_that_may_only_be_read_is_evaluated_and_exported(
    read_only: Path, finished: Path, tmp_path: Path, lock: bool
) -> None:
    if not lock:
        (read_only / ".lock").unlink()
    before = {path: path.read_bytes() for path in read_only.rglob("*") if path.is_file()}
    said: list[str] = []
    found = evaluate_run(read_only, limit=900, say=said.append)
    assert found.results == evaluate_run(finished, limit=900).results
    (line,) = said
    assert line.startswith(f"note: {read_only}: may be read and not written, so that the result is")
    export_run(read_only, tmp_path / "exported")
    assert (tmp_path / "exported" / "model.safetensors").is_file()
    for attempt in (COMMANDS["temperature"], COMMANDS["train"]):
        with pytest.raises(UserError, match="cannot write: the disk is read-only; choose") as error:
            attempt(read_only)
        assert "space" not in str(error.value)
    assert before == {path: path.read_bytes() for path in read_only.rglob("*") if path.is_file()}


def test_a_run_that_is_being_written_is_not_read(read_only: Path) -> None:
    with (read_only / ".lock").open("r") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="is being written by another process"):
            evaluate_run(read_only, limit=300)


def test_an_export_onto_a_full_disk_is_one_line_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.numpy
    from safetensors import SafetensorError

    def full(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        text = "Error while serializing: I/O error: No space left on device (os error 28)"
        raise SafetensorError(text)

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(UserError, match=r"exported: cannot write: the disk is full; free some"):
        export_run(run, tmp_path / "exported")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.long
def test_runs_and_exports_may_be_called_anything(tmp_path: Path, cache: Path) -> None:
    run = tmp_path / "out" / "v[1] {a}#%20?é*"
    assert train_run(tiny(budget={"steps": 2}), run).status == "done"
    assert evaluate_run(run, limit=300).about["step"] == 2
    fit_temperature_head(run, "global", limit=300)
    assert evaluate_run(run, limit=300, temperature="global").results["nll"] > 0
    assert write_report(run).is_file()
    export_run(run, tmp_path / "e[1]*")
    assert train_run(tiny(budget={"steps": 2}), run).status == "done"
    assert np.isfinite(json.loads((run / "run.json").read_text())["seconds"])
    assert to_yaml(RunFolder(run).read_config()) == to_yaml(tiny(budget={"steps": 2}))
