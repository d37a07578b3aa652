"""Prepared data: a damaged folder is made again, with a line that says so; a whole one never is."""

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from calibtrain.cli.terminal import make_view
from calibtrain.errors import UserError
from calibtrain.process.output import telling
from calibtrain.storage import prepared
from calibtrain.storage.prepared import SEAL, fingerprints, is_whole, prepare_once

TEXT = b"0123456789" * 20


class Filler:
    """Writes two files, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, folder: Path) -> None:
        self.times += 1
        (folder / "a.bin").write_bytes(TEXT)
        (folder / "deep").mkdir()
        (folder / "deep" / "b.json").write_text("{}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "thing"


def overwrite(path: Path) -> None:
    path.write_bytes(b"x" + path.read_bytes()[1:])


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed": (lambda f: overwrite(f / "a.bin"), r"a\.bin was changed"),
    "zeroed": (lambda f: (f / "a.bin").write_bytes(bytes(len(TEXT))), r"a\.bin was changed"),
    "cut": (lambda f: (f / "a.bin").write_bytes(TEXT[:9]), r"a\.bin has 9 bytes, not 200"),
    "empty": (lambda f: (f / "a.bin").write_bytes(b""), r"a\.bin has 0 bytes, not 200"),
    "longer": (lambda f: (f / "a.bin").write_bytes(TEXT + b"x"), r"a\.bin has 201 bytes, not 200"),
    "missing": (lambda f: (f / "a.bin").unlink(), r"a\.bin is missing"),
    "a folder": (lambda f: make_folder(f / "a.bin"), r"a\.bin has .* bytes, not 200"),
    "deep": (lambda f: (f / "deep" / "b.json").write_text("[]"), r"deep/b\.json was changed"),
    "seal empty": (lambda f: (f / SEAL).write_text(""), "seal.json was changed"),
    "seal without files": (
        lambda f: (f / SEAL).write_text('{"format": 1, "files": {}, "sha256": "0"}'),
        "seal.json was changed",
    ),
    "seal of lists": (lambda f: (f / SEAL).write_text("[" * 100_000), "seal.json was changed"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_noticed_and_made_good(
    folder: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill = Filler()
    prepare_once(folder, fill)
    assert is_whole(folder)
    damage, words = DAMAGE[kind]
    damage(folder)
    with caplog.at_level(logging.WARNING):
        prepare_once(folder, fill)
    assert fill.times == 2
    assert (folder / "a.bin").read_bytes() == TEXT
    assert is_whole(folder)
    (line,) = caplog.messages
    assert line.startswith(f"{folder}: was damaged (")
    assert line.endswith("); it is made again")
    assert re.search(words, line)
    assert not [path for path in folder.parent.iterdir() if ".tmp-" in path.name]


def test_what_is_whole_is_hashed_once_a_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill = Filler()
    prepare_once(folder, fill)
    prepare_once(folder, fill)
    monkeypatch.setattr(prepared, "fingerprints", None)
    prepare_once(folder, fill)
    (folder / "note.txt").write_text("a file beside them")
    prepare_once(folder, fill)
    assert fill.times == 1
    assert not caplog.messages


def test_a_large_file_is_hashed_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepared, "PIECE", 64)
    (tmp_path / "a").write_bytes(TEXT)
    (tmp_path / "b").write_bytes(b"")
    found = fingerprints(tmp_path, ["a", "b"])
    sha256 = prepared.hashlib.sha256
    assert found["a"] == {
        "bytes": 200,
        "sha256": [sha256(TEXT[at : at + 64]).hexdigest() for at in (0, 64, 128, 192)],
    }
    assert found["b"] == {"bytes": 0, "sha256": [sha256(b"").hexdigest()]}


def test_a_folder_of_an_earlier_version_is_sealed_if_it_is_sound(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill = Filler()
    folder.mkdir(parents=True)
    Filler()(folder)
    prepare_once(folder, fill, sound=lambda made: (made / "a.bin").read_bytes() == TEXT)
    assert fill.times == 0
    assert is_whole(folder)
    assert not caplog.messages
    (folder / SEAL).unlink()
    overwrite(folder / "a.bin")
    prepare_once(folder, fill, sound=lambda made: (made / "a.bin").read_bytes() == TEXT)
    assert fill.times == 1
    assert is_whole(folder)
    (folder / SEAL).unlink()
    prepare_once(folder, fill)  # nothing can tell whether it is right
    assert fill.times == 2
    assert ["files do not fit together" in line for line in caplog.messages] == [True, False]
    assert "has no checksums, as an earlier version made it" in caplog.messages[1]


def test_who_has_mapped_a_damaged_file_keeps_it(folder: Path) -> None:
    prepare_once(folder, Filler())
    overwrite(folder / "a.bin")
    mapped = np.memmap(folder / "a.bin", np.uint8, "r")
    prepare_once(folder, Filler())
    assert bytes(mapped) == b"x" + TEXT[1:]
    assert (folder / "a.bin").read_bytes() == TEXT


SCRIPT = """
import sys, time
from pathlib import Path
from calibtrain.storage.prepared import prepare_once
folder = Path(sys.argv[1])
def fill(temporary):
    time.sleep(0.3)
    (temporary / "a.bin").write_bytes(b"new" * 1000)
    print("filled")
while time.time() < float(sys.argv[2]):
    pass
prepare_once(folder, fill)
assert (folder / "a.bin").read_bytes() == b"new" * 1000
"""


@pytest.mark.long
def test_of_processes_that_meet_damage_at_once_one_makes_it_good(folder: Path) -> None:
    prepare_once(folder, Filler())
    (folder / "a.bin").write_bytes(b"")
    start = str(time.time() + 1.5)
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(folder), start], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    said = [process.communicate()[0] for process in crowd]
    assert [process.returncode for process in crowd] == [0, 0, 0]
    assert "".join(said) == "filled\n"


def test_a_fill_that_fails_leaves_nothing(folder: Path) -> None:
    prepare_once(folder, Filler())
    overwrite(folder / "a.bin")

    def fail(temporary: Path) -> None:
        (temporary / "a.bin").write_bytes(b"half")
        raise UserError("no text")

    with pytest.raises(UserError, match="no text"):
        prepare_once(folder, fail)
    assert [path.name for path in folder.parent.iterdir()] == [".thing.lock"]
    prepare_once(folder, Filler())
    assert is_whole(folder)


# --- the user sees it ----------------------------------------------------------------------------


def test_warnings_are_lines_for_whoever_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("calibtrain.storage.prepared")
    said: list[str] = []
    with telling(said.append):
        log.warning("outer %d", 1)
        with make_view("json"):
            log.warning("inner")
        log.warning("outer %d", 2)
    assert said == ["outer 1", "outer 2"]
    assert json.loads(capsys.readouterr().err) == {"event": "note", "text": "inner"}
    for kind in ("none", "plain", "rich"):
        with make_view(kind) as view:
            log.warning("mine [1]")
            view("seed=0", {"event": "note", "text": "of an arm"})
        shown = capsys.readouterr().err
        assert "mine [1]\n" in shown
        assert "seed=0: of an arm\n" in shown
