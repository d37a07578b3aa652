"""Questions, the lens and ensembles on the page of a run: what their files say, or nothing."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from folders import write_run
from pages import Page

from calibtrain.errors import UserError
from calibtrain.evaluation.candidates import Candidates, confidence_gaps, evaluate_candidates
from calibtrain.figures.ensembles import short_names
from calibtrain.report import write_report
from calibtrain.runs.instrument_records import EnsembleScoreRecord, LensRecord, QuestionsRecord

DRAWN = ("questions", "question-groups", "lens", "lens-labels", "ensemble")
ABOUT = {"format": 1, "run": "runs/a", "step": 7, "head": None}
GOLDEN = Path(__file__).parents[1] / "runs" / "golden" / "evaluation-byte.json"
P = (0.9, 0.8, 0.7, 0.6, 0.9, 0.8)
RIGHT = (True, True, False, True, False, True)
GROUPS = ("all", "all", "all", "<b>", "<b>", "<b>")


def questions() -> QuestionsRecord:
    """Six questions of two candidates, the first of which has the probabilities P."""
    own = Candidates(
        names=[str(number) for number in range(len(P))],
        scores=[np.log([[p, 1 - p]]) for p in P],
        right=[np.array([right, not right]) for right in RIGHT],
        groups=GROUPS,
    )
    about = {"corpus": "mine.jsonl", "corpus_hash": "0" * 16, "step": 7, "tokenizer_hash": "0" * 16}
    top, every = evaluate_candidates(own, about, protocol="own")
    tree = {
        **ABOUT,
        "set": "mine.jsonl",
        "set_hash": "0",
        "protocol": {"tokenisations": "own"},
        "questions": len(P),
        "temperature": 1.0,
        "fit": None,
        "notes": [],
        "top_candidate": top.to_dict(),
        "every_candidate": every.to_dict(),
        "gaps": confidence_gaps(own),
        "answers": [],
    }
    return QuestionsRecord.parse(tree, "here")


def lens(labelled: bool = False) -> LensRecord:
    """Two layers of two tokens; or of two texts with labels."""
    texts: list[dict[str, Any]] = [
        {"label": label, "tokens": 1, "profile": {"shannon": [1.0, level]}}
        for label, level in (("x", 2.0), ("y", 4.0))
    ]
    if not labelled:
        rows = [
            {"token": 1, "piece": '"吾<', "entropy": {"shannon": [1.0, 0.5]}},
            {"token": 2, "piece": None, "piece_hex": "e3", "entropy": {"shannon": [2.0, 0.25]}},
        ]
        texts = [{"tokens": 2, "profile": {"shannon": [1.5, 0.375]}, "rows": rows}]
    told = {"area": 0.75, "dummy_area": 0.5, "lower": 0.125, "upper": 0.375}
    separation = {"shannon": told} if labelled else {}
    tree = {**ABOUT, "layers": 2, "texts": texts, "separation": separation}
    return LensRecord.parse(tree, "here")


def scores() -> EnsembleScoreRecord:
    """An ensemble of two members, one of which has no figures."""
    own = json.loads(GOLDEN.read_text())
    apart = {"estimate": -0.5, "lower": -0.75, "upper": -0.25}
    member = {
        "run": "runs/study/ensemble",
        "bits_per_byte": own["bits_per_byte"] + 0.5,
        "ece": own["ece"],
        "difference": {"bits_per_byte": apart, "ece": {**apart, "estimate": 0.125}},
        "evaluation": own,
    }
    without = {
        "run": "b",
        **dict.fromkeys(("bits_per_byte", "ece", "difference", "evaluation")),
    }
    tree = {
        "format": 1,
        "method": "mixture",
        "settings": {"average": "linear", "weights": None},
        "runs": [],
        "bits_per_byte": own["bits_per_byte"],
        "ece": own["ece"],
        "members": [member, without],
        "beam_loss_bits": 0.0,
        "notes": [],
        "evaluation": own,
    }
    return EnsembleScoreRecord.parse(tree, "here")


def keep(run: Path) -> None:
    """Writes all of them into a run."""
    (run / "analysis").mkdir()
    (run / "ensembles").mkdir()
    questions().write(run / "analysis" / "questions-mine.jsonl-own.json")
    lens().write(run / "analysis" / "lens-texts.json")
    lens(labelled=True).write(run / "analysis" / "lens-labels.json")
    scores().write(run / "ensembles" / "pair.json")


def points(plot: dict[str, Any]) -> dict[str, float]:
    """What is marked above each name."""
    found = [trace for trace in plot["data"] if trace.get("name") == "value"]
    return {x: y for trace in found for x, y in zip(trace["x"], trace["y"], strict=True)}


def test_a_run_draws_what_was_kept_of_it(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    bare = Page(write_report(tmp_path / "run"))
    assert not set(DRAWN) & set(bare.figures())
    keep(tmp_path / "run")
    page = Page(write_report(tmp_path / "run"))
    assert {name for name in page.figures() if name not in bare.figures()} == set(DRAWN)
    assert sorted(page.results["analyses"]) == ["ensembles", "lens", "questions"]


def test_confidence_in_answers_is_that_of_the_questions(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    keep(tmp_path / "run")
    page = Page(write_report(tmp_path / "run"))
    top, every = page.plots_of("questions")
    for plot, confidence, right in (
        (top, P, RIGHT),
        (every, (*P, *(1 - p for p in P)), (*RIGHT, *(not r for r in RIGHT))),
    ):
        found = next(trace for trace in plot["data"] if "size" in trace.get("marker", {}))
        bins = {}
        for c, r in zip(confidence, right, strict=True):
            bins.setdefault(round(c, 6), []).append(r)
        means = {c: sum(own) / len(own) for c, own in bins.items()}
        assert found["x"] == pytest.approx(sorted(means))
        assert found["y"] == pytest.approx([means[c] for c in sorted(means)])
    signed, apart = page.plots_of("question-groups")
    # a group may be called as the sum of all is, and the two are apart
    shares = {"<b>all</b>": slice(0, 6), "all": slice(0, 3), "&lt;b&gt;": slice(3, 6)}
    c, r = np.array(P), np.array(RIGHT)
    assert points(signed) == pytest.approx(
        {name: (c - r)[own].mean() for name, own in shares.items()}
    )
    assert points(apart) == pytest.approx(
        {name: c[own][r[own]].mean() - c[own][~r[own]].mean() for name, own in shares.items()}
    )


def test_the_lens_is_drawn_by_layer_and_token_or_by_label(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    keep(tmp_path / "run")
    page = Page(write_report(tmp_path / "run"))
    (plot,) = page.plots_of("lens")
    assert plot["data"][0]["z"] == [[1.0, 2.0], [0.5, 0.25]]
    assert plot["layout"]["xaxis"]["ticktext"] == ['"吾&lt;', r"\xe3"]
    (plot,) = page.plots_of("lens-labels")
    assert [trace["y"] for trace in plot["data"]] == [[1.0, 2.0], [1.0, 4.0]]
    assert "area under ROC 0.750, of guesses 0.500" in page.part("lens-labels")


def test_an_ensemble_stands_beside_its_members(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    keep(tmp_path / "run")
    own = json.loads(GOLDEN.read_text())
    page = Page(write_report(tmp_path / "run"))
    bits, ece, less_bits, less_ece = page.plots_of("ensemble")
    sums = {"ensemble": own["bits_per_byte"] + 0.5, "<b>ensemble</b>": own["bits_per_byte"]}
    assert points(bits) == sums
    assert points(ece) == {"ensemble": own["ece"], "<b>ensemble</b>": own["ece"]}
    assert points(less_bits) == {"ensemble": -0.5}
    assert points(less_ece) == {"ensemble": 0.125}
    bars = next(trace for trace in less_bits["data"] if trace.get("name") == "95 % interval")
    assert bars["y"][:2] == [-0.75, -0.25]
    assert "beside its members: pair" in page.part("ensemble")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    keep(tmp_path / "run")
    path = tmp_path / "run" / "analysis" / "questions-mine.jsonl-own.json"
    path.write_text(path.read_text().replace('"questions": 6', '"questions": 5'))
    with pytest.raises(UserError, match=re.escape(path.name)):
        write_report(tmp_path / "run")


def test_members_are_called_by_the_last_part_of_their_paths() -> None:
    assert short_names(["runs/a", "runs/b", "other/b"]) == ["a", "runs/b", "other/b"]
