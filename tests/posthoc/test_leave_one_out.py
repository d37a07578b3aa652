"""A Thermometer for each group of documents, of which it knows no label."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny

from calibtrain.cli import main as cli
from calibtrain.errors import UserError
from calibtrain.evaluation import evaluate_run, train_run
from calibtrain.fitting.thermometer import ThermometerRecipe
from calibtrain.metrics.signature import parse_signature
from calibtrain.posthoc import leave_one_out
from calibtrain.runs.loading import opened

QUICK = ThermometerRecipe(steps=5, tokens=64)
KINDS = ["none", "thermometer", "others", "own"]
GROUPS = {"digits": "0123456789", "vowels": "aeiou", "others": "bcdfg"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """Of documents of three groups, which differ in their letters."""
    folder = tmp_path_factory.mktemp("groups")
    rng = np.random.default_rng(0)
    lines = [
        {"text": "".join(rng.choice(list(letters), 40)) + f" {number}", "of": group}
        for number in range(30)
        for group, letters in GROUPS.items()
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    corpus = {
        "name": "files",
        "paths": [str(folder / "texts.jsonl")],
        "group": "of",
        "validation_fraction": 0.3,
        "test_fraction": 0.3,
    }
    config = tiny(
        corpus=corpus,
        tokenizer={"kind": "byte", "vocab_size": 258},
        budget={"steps": 4},
        evaluation={"every": 4, "bytes": 300, "final_bytes": 300, "final_splits": ["test"]},
    )
    assert train_run(config, folder / "run", cache=cache).status == "done"
    return folder / "run"


@pytest.mark.long
def test_the_group_itself_is_left_out_and_all_the_text_is_measured(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted_to: list[set[int]] = []
    fit = leave_one_out.fit_thermometer

    def watched(
        source: Any, output_layer: Any, states: Any, tasks: Sequence[Any], recipe: Any
    ) -> Any:
        fitted_to.append({int(document) for task in tasks for document in task})
        return fit(source, output_layer, states, tasks, recipe)

    monkeypatch.setattr(leave_one_out, "fit_thermometer", watched)
    found = leave_one_out.leave_one_group_out(run, recipe=QUICK)
    assert [group["group"] for group in found["groups"]] == sorted(GROUPS)
    with opened(run) as saved:
        groups = np.array(saved.corpus(None).groups("validation"))
    for group, documents in zip(found["groups"], fitted_to, strict=True):
        others = np.flatnonzero(groups != group["group"])
        assert documents == {int(document) for document in others}
    for group in found["groups"]:
        rows = group["rows"]
        assert [row["head"] for row in rows] == KINDS
        assert len({row["accuracy"] for row in rows}) == 1
        assert rows[0]["temperature"] == 1.0
        assert "differences" not in rows[0]
        for row in rows[1:]:
            apart = row["differences"]["nll"]
            assert apart["difference"] == pytest.approx(row["nll"] - rows[0]["nll"], abs=1e-6)
            made = parse_signature(row["signatures"]["ece"])
            assert made.temperature == row["temperature"]
    plain = [group["rows"][0] for group in found["groups"]]
    whole = evaluate_run(run).results
    assert sum(row["tokens"] for row in plain) == whole["tokens"]
    nll = sum(row["nll"] * row["tokens"] for row in plain) / whole["tokens"]
    assert nll == pytest.approx(whole["nll"], rel=1e-6)


@pytest.mark.long
def test_two_groups_are_too_few(run: Path) -> None:
    """Of a few bytes of text, which hold no two documents of each."""
    with pytest.raises(UserError, match="at least 3 are needed"):
        leave_one_out.leave_one_group_out(run, limit=60)


def test_the_command_line_takes_the_steps(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The work itself is the test above."""

    def answer(path: Path, *, recipe: ThermometerRecipe, **rest: Any) -> dict[str, Any]:
        return {"steps": recipe.steps, "fitted_on": {}, "groups": []}

    monkeypatch.setattr(leave_one_out, "leave_one_group_out", answer)
    said = ["temperature", "compare", str(run), "--leave-one-group-out", "--steps", "3", "--json"]
    monkeypatch.setattr(sys, "argv", ["calibtrain", *said])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 3
