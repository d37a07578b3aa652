"""Places that users name: below a home folder by ~, and never by an empty text."""

import sys
from pathlib import Path

import pytest
from conftest import tiny

from calibtrain.cli import main as cli
from calibtrain.config import to_yaml
from calibtrain.errors import UserError
from calibtrain.storage.disk import cache_directory
from calibtrain.storage.places import place


def run_command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["calibtrain", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return folder


def test_a_tilde_is_the_home_folder(home: Path) -> None:
    assert place("~/x") == home / "x"
    assert place("~") == home
    assert place(Path("~/x")) == Path("~/x"), "a Path is a place already"
    assert place("x/~") == Path("x/~")
    named = place("./~/x")
    assert named == Path.cwd() / "~" / "x"
    assert place(str(named)) == named
    with pytest.raises(UserError, match=r"^~no-such-user-here/x: there is no home folder"):
        place("~no-such-user-here/x")


@pytest.mark.parametrize("text", ["", "  ", "a\0b"])
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="names no file or folder"):
        place(text)


def test_the_cache_is_a_folder_of_a_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBTRAIN_CACHE", "~/kept")
    assert cache_directory() == home / "kept"
    monkeypatch.delenv("CALIBTRAIN_CACHE")
    assert cache_directory() == home / ".cache" / "calibtrain"


@pytest.mark.long
def test_every_command_takes_a_tilde(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    byte = tiny(tokenizer={"kind": "byte", "vocab_size": 258})
    (home / "c.yaml").write_text(to_yaml(byte))
    (home / "study.yaml").write_text("grid: {seed: [0, 1]}")
    (home / "tuned.yaml").write_text("finetune: {run: ~/nothing, paths: [~/none.jsonl]}")
    for command in (
        ("config", "show", "~/c.yaml"),
        ("tokenizer", "train", "~/c.yaml", "--out=~/tok"),
        ("tokenizer", "inspect", "~/tok"),
        ("launch", "slurm", "~/c.yaml", "--run=~/s", "--dry-run"),
    ):
        assert run_command(monkeypatch, *command) == 0, command
    assert f"{home}/s" in capsys.readouterr().out
    nothing = str(home / "nothing")
    for name, command in (
        (nothing, ("evaluate", "~/nothing")),
        (nothing, ("report", "~/nothing")),
        (nothing, ("temperature", "list", "~/nothing")),
        (nothing, ("temperature", "fit", "~/nothing", "--head=global")),
        (nothing, ("temperature", "compare", "~/nothing")),
        (nothing, ("export", "~/nothing", "~/out")),
        (nothing, ("import", "~/nothing", "--run=~/made")),
        (nothing, ("finetune", "~/tuned.yaml")),
        (nothing, ("train", "~/c.yaml", "--run=~/x", "tokenizer={path: ~/nothing}")),
        (f"{home}/study.yaml", ("ablate", "~/study.yaml", "--run=~/study.yaml")),
        (f"{home}/c.yaml", ("train", "~/c.yaml", "--run=~/c.yaml", "budget.steps=1")),
    ):
        assert run_command(monkeypatch, *command) == 2, command
        assert name in capsys.readouterr().err, command
    assert not list(Path.cwd().iterdir()), "nothing was made where the command ran"


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", ""),
        ("train", "c.yaml", "--run", ""),
        ("ablate", "c.yaml", "--run", ""),
        ("finetune", "c.yaml", "--run", ""),
        ("evaluate", ""),
        ("report", ""),
        ("export", "", "x"),
        ("export", "x", ""),
        ("import", "", "--run", "x"),
        ("import", "x", "--run", ""),
        ("temperature", "list", ""),
        ("tokenizer", "inspect", ""),
        ("launch", "slurm", "c.yaml", "--run", ""),
        ("config", "show", ""),
    ],
)
def test_an_empty_path_is_one_line(
    arguments: tuple[str, ...],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("c.yaml").write_text("seed: 1")
    assert run_command(monkeypatch, *arguments) == 2
    assert capsys.readouterr().err == "calibtrain: '' names no file or folder; give a path\n"
