"""docs/python.md and the notebook run as they stand, in an empty folder."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny

from calibtrain.config import to_yaml

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "python.md"
NOTEBOOK = ROOT / "experiments" / "quickstart.ipynb"


def blocks() -> list[str]:
    """The examples of the page, in its order."""
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def run_blocks(examples: list[str]) -> dict[str, Any]:
    """Runs examples one after the other in a namespace, as a reader would, and returns that."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for number, example in enumerate(examples):
        exec(compile(example, f"example {number} of {PAGE.name}", "exec"), namespace)
    return namespace


@pytest.mark.long
def test_the_first_script_is_short_and_runs_on_any_configuration(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished_run: Path,
) -> None:
    """A file that is called tiny comes before the ready-made configuration of this name."""
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_text(to_yaml(tiny()))
    script = blocks()[0]
    assert len(script.splitlines()) <= 20
    small = script.replace('"budget.bytes": 200_000', '"budget.steps": 24')
    found = run_blocks([small.replace('events="byte", ', "")])  # by tokens, in a few seconds
    lines = [folder / "metrics.jsonl" for folder in (found["run"].folder, finished_run)]
    assert lines[0].read_bytes() == lines[1].read_bytes()
    assert repr(found["result"]) in capsys.readouterr().out
    assert "accuracy" in Path("reliability.html").read_text("utf-8")


def test_the_notebook_is_of_format_4_and_names_no_machine() -> None:
    text = NOTEBOOK.read_text("utf-8")
    tree = json.loads(text)
    assert (tree["nbformat"], tree["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in tree["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(not cell.get("outputs") for cell in tree["cells"])
    assert not re.search(r"/(home|root|work|tmp|Users)/", text)


@pytest.mark.long
def test_every_example_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run_blocks(blocks())
    assert "did you mean model.width?" in capsys.readouterr().out
    assert [arm.status for arm in found["study"].arms.values()] == ["done", "done"]
    assert len(found["curve"]) == 2
    assert found["curve"][-1][0] == found["short_run"].record.steps
    assert (tmp_path / "exported" / "model.safetensors").is_file()
    assert (tmp_path / "runs" / "vocabularies" / "report.html").is_file()


@pytest.mark.long
def test_the_notebook_runs_headless(tmp_path: Path) -> None:
    import nbclient
    import nbformat

    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    outputs = {cell["id"]: cell.get("outputs", []) for cell in notebook.cells}
    assert "EvaluationResult" in str(outputs["measured"])
    (drawn,) = [each for each in outputs["plotted"] if "data" in each]
    assert "application/vnd.plotly.v1+json" in drawn["data"]
    assert "<progress" in str(outputs["trained"])
    assert (tmp_path / "runs" / "notebook-512" / "report.html").is_file()
