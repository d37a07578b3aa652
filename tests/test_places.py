"""Places that users name: below a home folder by ~, and never by an empty text."""

import sys
from pathlib import Path

import pytest
from conftest import tiny

from calibtrain import cli
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


def test_every_command_takes_a_tilde(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    byte = tiny(tokenizer={"kind": "byte", "vocab_size": 258}, budget={"steps": 2})
    (home / "c.yaml").write_text(to_yaml(byte))
    assert run_command(monkeypatch, "config", "show", "~/c.yaml") == 0
    assert run_command(monkeypatch, "tokenizer", "train", "~/c.yaml", "--out=~/tok") == 0
    assert run_command(monkeypatch, "tokenizer", "inspect", "~/tok") == 0
    arguments = ("train", "~/c.yaml", "--run=~/run", "--progress=none")
    assert run_command(monkeypatch, *arguments, "tokenizer.path=~/tok") == 0
    assert run_command(monkeypatch, "evaluate", "~/run", "--bytes=2000") == 0
    assert run_command(monkeypatch, "report", "~/run") == 0
    assert run_command(monkeypatch, "temperature", "list", "~/run") == 0
    assert run_command(monkeypatch, "temperature", "fit", "~/run", "--head=global") == 0
    assert run_command(monkeypatch, "export", "~/run", "~/out") == 0
    assert (home / "out" / "config.json").is_file()
    assert run_command(monkeypatch, "import", "~/nothing", "--run=~/made") == 2
    assert run_command(monkeypatch, "launch", "slurm", "~/c.yaml", "--run=~/s", "--dry-run") == 0
    shown = capsys.readouterr()
    assert f"{home}/s" in shown.out
    assert f"{home}/nothing" in shown.err
    assert not list(Path.cwd().iterdir()), "nothing was made where the command ran"
    assert "~/tok" in (home / "run" / "config.yaml").read_text(), "the value is kept as written"


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
