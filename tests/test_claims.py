"""Papers' claims: pages show what tables compute from the committed results."""

import contextlib
import io
import runpy
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
RESULTS = {
    "along-training": "results.json",
    "matrix-scaling": "results",
    "smoothing-out-of-domain": "results",
    "thermometer-left-out": "results",
}


def printed(experiment: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns the lines of an experiment's tables."""
    folder = EXPERIMENTS / experiment
    monkeypatch.setattr(sys, "argv", ["table.py", str(folder / RESULTS[experiment])])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(str(folder / "table.py"), run_name="__main__")
    return [line for line in out.getvalue().splitlines() if line and not line.startswith("**")]


@pytest.mark.parametrize("experiment", RESULTS)
def test_a_page_shows_every_figure_that_the_committed_results_give(
    experiment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (EXPERIMENTS / experiment / "README.md").read_text()
    lines = printed(experiment, monkeypatch)
    assert len(lines) > 8
    assert not [line for line in lines if line not in page]


def test_every_experiment_with_a_verdict_on_a_claim_has_a_row() -> None:
    table = (EXPERIMENTS / "README.md").read_text()
    for experiment in RESULTS:
        assert f"({experiment}/README.md)" in table
