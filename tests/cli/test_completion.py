"""What a shell completes, asked as its script asks: folders of runs, configurations, heads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import calibtrain
from calibtrain.cli.completion import complete_config, complete_folder
from calibtrain.cli.temperature import KINDS
from calibtrain.config import HEADS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "runs" / "吾輩" / "temperature" / "linear").mkdir(parents=True)
    (tmp_path / "runs" / "吾輩" / "config.yaml").touch()
    (tmp_path / "runs" / "study" / "seed=0").mkdir(parents=True)
    (tmp_path / "runs" / "study" / "ablation.json").touch()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "tiny.yaml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folders_and_files_are_those_that_a_text_begins(folder: Path) -> None:
    assert complete_folder("") == ["runs/"]
    assert complete_folder("runs/") == ["runs/study", "runs/吾輩"]
    assert complete_folder("runs/吾輩/") == []
    assert complete_folder("nowhere/") == []
    assert complete_config("ti") == ["tiny", "tiny.yaml"]  # that of the package, and that file
    assert {"runs/", "tiny.yaml", "quickstart", "losses/focal"} <= {*complete_config("")}


def test_the_kinds_of_heads_are_all_that_there_are() -> None:
    assert {*KINDS} == {*HEADS}


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("calibtrain evaluate runs/s", ["runs/study"]),
        ("calibtrain evaluate runs/吾輩 --temperature l", ["linear"]),
        ("calibtrain evaluate runs/吾輩 --split v", ["validation"]),
    ],
)
def test_a_shell_is_answered(folder: Path, typed: str, completed: list[str]) -> None:
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    code = "import sys; sys.argv = ['calibtrain']; from calibtrain.__main__ import main; main()"
    root = str(Path(calibtrain.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked, "_CALIBTRAIN_COMPLETE": "complete_bash", "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == completed, done.stderr
