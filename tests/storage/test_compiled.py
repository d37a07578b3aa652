"""Compiled programs that were damaged are removed before JAX reads them, with a line."""

import os
import time
import zlib
from pathlib import Path

import pytest

from calibtrain.storage import compiled
from calibtrain.storage.compiled import open_compiled
from calibtrain.storage.prepared import SEAL

PROGRAM = zlib.compress(bytes(range(256)) * 50)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(compiled, "_seen", {})
    for name in ("jit_step", "jit_score"):
        add(tmp_path / f"{name}-0a-cache", PROGRAM)
    return tmp_path


def add(path: Path, data: bytes, age: float = 3600) -> Path:
    path.write_bytes(data)
    os.utime(path, (time.time() - age,) * 2)
    return path


def again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    monkeypatch.setattr(compiled, "_seen", {})  # as another process
    open_compiled(folder)
    return {path.name for path in folder.glob("*-cache")}


def test_a_folder_that_is_not_there_is_left_to_jax(tmp_path: Path) -> None:
    assert open_compiled(tmp_path / "compiled") == tmp_path / "compiled"
    assert not (tmp_path / "compiled").exists()


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("data", [PROGRAM[:-9], PROGRAM[:40] + b"xyz" + PROGRAM[43:], b""])
def test_a_damaged_program_is_removed(
    folder: Path,
    sealed: bool,
    data: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if sealed:
        open_compiled(folder)
    assert not caplog.messages
    add(folder / "jit_step-0a-cache", data)
    assert again(folder, monkeypatch) == {"jit_score-0a-cache"}
    assert caplog.messages == [
        f"{folder}: 1 compiled program(s) were damaged (jit_step); they are compiled again"
    ]
    other = zlib.compress(b"compiled again")
    add(folder / "jit_step-0a-cache", other)
    assert again(folder, monkeypatch) == {"jit_score-0a-cache", "jit_step-0a-cache"}
    assert len(caplog.messages) == 1


def test_what_compression_without_a_checksum_hides_a_seal_tells(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = add(folder / "jit_other-0a-cache", b"\x28\xb5\x2f\xfd and more")
    assert path.name in again(folder, monkeypatch)
    add(path, b"\x28\xb5\x2f\xfd and MORE")
    assert path.name not in again(folder, monkeypatch)


def test_a_program_that_is_being_written_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = add(folder / "jit_new-0a-cache", PROGRAM[:-9], age=1)
    assert path.name in again(folder, monkeypatch)
    add(path, PROGRAM, age=0)
    assert path.name in again(folder, monkeypatch)


def test_a_damaged_seal_costs_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_compiled(folder)
    (folder / SEAL).write_text("{")
    assert len(again(folder, monkeypatch)) == 2
    assert (folder / SEAL).read_text() != "{"


def test_whole_programs_are_read_once_a_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_compiled(folder)
    monkeypatch.setattr(compiled, "fingerprints", None)
    open_compiled(folder)
