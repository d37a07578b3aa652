"""An exported run is evaluated by lm-evaluation-harness, and its samples are measured.

These need lm-eval, transformers and torch (`make test-peers`), and so do arrays of other libraries.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import call

from calibtrain.evaluation import measure
from calibtrain.interchange import export_run

pytestmark = [pytest.mark.peers]
pytest.importorskip("lm_eval")
torch = pytest.importorskip("torch")
QUESTIONS = 12


def block(page: str, kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


def test_a_task_of_ones_own_is_measured(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the page's own steps; accuracy and Brier score are those that the harness reports.

    The tiny run's context is shorter than a question, which the harness would refuse.
    """
    page = (Path(__file__).parents[2] / "docs" / "lm-eval.md").read_text()
    monkeypatch.chdir(tmp_path)
    export_run(finished_run, tmp_path / "exported")
    (tmp_path / "verses.yaml").write_text(block(page, "yaml"))
    exec(block(page, "python"), {})
    questions = json.loads((tmp_path / "questions.json").read_text())
    (tmp_path / "questions.json").write_text(json.dumps(questions[:QUESTIONS]))
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = "run --model hf --model_args pretrained=exported,max_length=512 "
    command += "--tasks verses --include_path . --device cpu --log_samples --output_path results"
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", *command.split()],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (reported,) = Path("results").rglob("results_*.json")
    theirs = json.loads(reported.read_text())["results"]["verses"]
    (samples,) = Path("results").rglob("samples_verses_*.jsonl")
    measured = call("measure", samples, "--document", "chapter", "--json")
    assert measured.returncode == 0, measured.stderr
    ours = json.loads(measured.stdout)
    assert (ours["corpus"], ours["event"], ours["tokens"]) == ("verses", "candidate", QUESTIONS)
    assert ours["documents"] == len({each["chapter"] for each in questions[:QUESTIONS]})
    assert ours["accuracy"] == pytest.approx(theirs["acc,none"], abs=1e-12)
    assert ours["multiclass_brier"] == pytest.approx(theirs["brier_score,none"], abs=1e-6)


def test_arrays_of_other_libraries_give_the_same_figures() -> None:
    polars = pytest.importorskip("polars")
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    confidence = rng.random(300).astype(np.float32)
    correct, documents = rng.random(300) < confidence, np.arange(300) // 3
    expected = measure(confidence, correct, documents=documents)
    grads = torch.tensor(confidence, requires_grad=True)
    inputs: list[tuple[Any, Any, Any]] = [
        (grads, torch.tensor(correct), torch.tensor(documents)),
        tuple(map(pandas.Series, (confidence, correct, documents))),
        (pandas.Series(confidence).astype("Float32"), correct, pandas.Series(documents)),
        tuple(map(polars.Series, (confidence, correct, documents))),
    ]
    for given in inputs:
        assert measure(*given[:2], documents=given[2]).to_dict() == expected.to_dict()
    half = grads.bfloat16()
    rounded = measure(half, torch.tensor(correct)).results
    exact = half.detach().float().numpy()
    assert rounded["mean_confidence"] == pytest.approx(exact.mean(dtype=np.float64), abs=1e-12)
    logits, label = torch.randn(50, 4, requires_grad=True), torch.randint(0, 4, (50,))
    loss = torch.nn.functional.cross_entropy(logits.double(), label).item()
    found = measure(log_probabilities=logits, label=label).results
    assert found["nll"] == pytest.approx(loss, rel=1e-12)
