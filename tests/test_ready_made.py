"""Ready-made configurations and tokenizers are found by name, from a checkout and from a wheel."""

import json
from pathlib import Path

import pytest
from conftest import call

from calibtrain.config import load_config, load_study, read_tree, ready_made
from calibtrain.data.tokenizers.tokenizer_choice import published_folders
from calibtrain.errors import UserError

REPOSITORY = Path(__file__).parent.parent


def test_every_file_of_the_folder_has_a_name_and_a_description() -> None:
    files = {
        path.relative_to(REPOSITORY / "configs") for path in REPOSITORY.glob("configs/**/*.yaml")
    }
    assert {Path(f"{name}.yaml") for name in ready_made.names()} == files
    assert {"tiny", "quickstart", "losses/focal"} <= set(ready_made.names())
    for name in ready_made.names():
        said = ready_made.description(name)
        assert said.endswith(".")
        assert 15 < len(said) < 140


def test_a_name_is_read_as_its_file() -> None:
    assert load_config(ready_made.found("tiny")) == load_config(REPOSITORY / "configs/tiny.yaml")
    assert load_study(ready_made.found("quickstart")).grid


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # a folder is not a configuration
    assert ready_made.found("quickstart") == ready_made.path_of("quickstart")
    (tmp_path / "tiny").write_text("seed: 7")
    assert load_config(ready_made.found("tiny")).seed == 7


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("tinny", ["tinny", "did you mean tiny?", "config list"]),
        ("focal", ["losses/focal"]),
        ("configs/tiny.yaml", ["configs/tiny.yaml", "no such configuration file", "as tiny"]),
        ("xyzzy", ["xyzzy", "calibtrain config list"]),
    ],
)
def test_what_is_neither_names_what_is_near(
    given: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        ready_made.found(given)
    for word in words:
        assert word in str(error.value)


def test_a_path_that_is_not_there_is_said_by_its_reader(tmp_path: Path) -> None:
    path = ready_made.found(str(tmp_path / "mine.yaml"))
    with pytest.raises(UserError, match=r"mine\.yaml: no such configuration file"):
        load_config(path)


def test_the_commands_list_copy_and_refuse(tmp_path: Path) -> None:
    listed = json.loads(call("config", "list", "--json").stdout)
    assert [row["name"] for row in listed] == list(ready_made.names())
    kinds = {row["name"]: row["command"] for row in listed}
    assert (kinds["tiny"], kinds["quickstart"]) == ("train", "ablate")
    assert kinds["finetune/sft"] == "finetune"
    mine = tmp_path / "mine.yaml"
    assert call("config", "copy", "losses/focal", mine).returncode == 0
    assert read_tree(mine) == read_tree(ready_made.path_of("losses/focal"))
    assert "language-server" not in mine.read_text()
    mine.write_text("seed: 1")
    again = call("config", "copy", "losses/focal", mine)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert mine.read_text() == "seed: 1"


def test_published_tokenizers_are_found_in_a_checkout() -> None:
    assert {path.name for path in published_folders()} == {
        path.parent.name for path in REPOSITORY.glob("tokenizers/*/manifest.json")
    }
    assert len(published_folders()) >= 5
