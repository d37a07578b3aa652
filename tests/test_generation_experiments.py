"""Experiments on generations: pages show what the scripts compute from the committed figures."""

import contextlib
import io
import runpy
import sys
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SCRIPTS = (
    "beam-diversity/beam_diversity",
    "consistency/consistency",
    "ensembling/ensembling",
    "entropy-rate/drift",
    "entropy-rate/entropy_rate",
    "memory/memory",
    "mbr/agreement",
    "typicality/typicality",
    *("questions/questions", "questions/tuning", "questions/aligned"),
    *("lens/lens", "lens/aligned"),
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_page_shows_every_table_of_the_committed_figures(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = EXPERIMENTS / f"{script}.py"
    monkeypatch.setattr(sys, "argv", [str(file)])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(str(file), run_name="__main__")
    page = (file.parent / "README.md").read_text("utf-8")
    rows = [line for line in out.getvalue().splitlines() if line.startswith("|")]
    assert len(rows) > 4
    assert not [row for row in rows if row not in page]


def test_the_verdict_of_h6_is_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    file = EXPERIMENTS / "entropy-rate" / "drift.py"
    monkeypatch.setattr(sys, "argv", [str(file)])
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(str(file), run_name="__main__")
    assert "**H6: refuted.**" in out.getvalue()
    assert "**H6 is refuted** by its rule" in (file.parent / "README.md").read_text("utf-8")
