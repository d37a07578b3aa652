"""Ensembles in a program: objects that hold what the commands say."""

import math
import shutil
from pathlib import Path

import pytest

import calibtrain as ct
from calibtrain.errors import UserError
from calibtrain.runs.ensemble_traces import SCHEMA


@pytest.mark.long
def test_texts_steps_and_scores_are_those_of_the_members(
    tmp_path: Path, finished_run: Path, finished_lstm: Path
) -> None:
    runs = [shutil.copytree(finished_run, tmp_path / "a"), tmp_path / "b"]
    shutil.copytree(finished_lstm, runs[1])
    found = ct.ensemble(runs).generate("In", samples=3, max_bytes=12, seed=4, explain=True)
    assert len(found) == 3
    assert found.members["run"].tolist() == [str(run) for run in runs] * 3
    assert tuple(found.steps.columns) == tuple(SCHEMA.names)
    first = [row for row in found.steps if row["text"] == 0 and row["member"] == str(runs[0])]
    assert b"".join(row["chosen"] for row in first) == found.details[0].data
    bits = -sum(math.log2(row["probability"]) for row in first)
    assert found.members["information_bits"][0] == pytest.approx(bits)
    (tmp_path / "text.txt").write_text("In the beginning")
    score = ct.ensemble(runs, weighting="uniform").score(tmp_path / "text.txt", progress=None)
    assert score.table["bits_per_byte"][0] == score.bits_per_byte
    assert score.table["run"].tolist() == ["ensemble", *map(str, runs)]
    assert "one document" in score.notes[0]
    with pytest.raises(UserError, match="mixture alone"):
        ct.ensemble(runs, "union").score(tmp_path / "text.txt")


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("mean", {}, "^method: 'mean' is not allowed; allowed: mixture, agreement"),
        ("union", {"width": 3}, "^width: is not a setting of union; there are top, weights"),
        ("mixture", {"weights": [1, 2], "weighting": "uniform"}, "^weights: is not used"),
        ("mixture", {"weights": [1, "two"]}, "^weights: .* must be numbers"),
        ("selective", {"draft": 0}, "^draft: 0: must be at least 1"),
    ],
)
def test_what_is_not_allowed_is_named(method: str, settings: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ct.ensemble([], method, **settings)
