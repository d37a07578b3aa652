"""Analyses of generations on the page of a run and of a study: what their files say, or nothing."""

import statistics
from pathlib import Path
from typing import Any

import pytest
from folders import write_run, write_study
from pages import Page

from calibtrain.report import write_report
from calibtrain.runs.analysis_records import EntropyRecord, MemoryRecord, TypicalityRecord

DRAWN = ("entropy-by-position", "memory-bound", "typicality")
TAUS = (1, 2, 4)


def figure(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "lower": estimate - 0.25, "upper": estimate + 0.25}


def write_analyses(run: Path, vocab: int, level: float, prompts: int = 8) -> None:
    """Writes analyses whose figures are all `level`, but for that of the documents: 1."""
    about = {
        "format": 1,
        "run": run.name,
        "step": 7,
        "corpus": "kjv",
        "split": "test",
        "tokenizer_hash": "0",
        "vocab_size": vocab,
        "model": "transformer",
        "context": 32,
        "documents": 4,
        "protocol": {"prompts": prompts},
    }
    counts = {"texts": 4, "ended": 0, "tokens": 9, "bytes": 90, "common_texts": 4}
    rows = [
        {
            "name": name,
            "measured": "entropy",
            **counts,
            "excess_bits_per_byte": figure(value - 1) if name == "ancestral" else None,
            "positions": [
                {"start": at, "stop": at + 10, "texts": 4, "common_bits_per_byte": figure(value)}
                for at in (0, 10)
            ],
        }
        for name, value in (("text", 1.0), ("ancestral", level))
    ]
    memory = [{"tokens": tau, "bits_per_byte": figure(level / tau)} for tau in TAUS]
    kinds = [
        {"name": name, "texts": 4, "bytes": 40, "quality": {}, "deviation": figure(value)}
        for name, value in (("text", 0.0), ("greedy", -level))
    ]
    records: dict[str, Any] = {
        "entropy": EntropyRecord.parse({**about, "rows": rows}, "here"),
        "memory": MemoryRecord.parse(
            {**about, "positions": 9, "bytes_per_token": 2.0, "rows": memory}, "here"
        ),
        "typicality": TypicalityRecord.parse({**about, "rows": kinds, "correlations": []}, "here"),
    }
    (run / "analysis").mkdir()
    for kind, record in records.items():
        record.write(run / "analysis" / f"{kind}-kjv-test.json")


def marks(plot: dict[str, Any]) -> list[dict[str, Any]]:
    """The traces of means or estimates."""
    return [trace for trace in plot["data"] if trace.get("name") == "value"]


def test_a_run_draws_the_analyses_in_its_folder(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    bare = Page(write_report(tmp_path / "run"))
    assert not set(DRAWN) & set(bare.figures())
    assert "analyses" not in bare.results
    write_analyses(tmp_path / "run", 512, 3.0)
    page = Page(write_report(tmp_path / "run"))
    assert [name for name in page.figures() if name not in bare.figures()] == list(DRAWN)
    assert sorted(page.results["analyses"]) == ["entropy", "memory", "typicality"]
    (entropy,) = page.plots_of(DRAWN[0])
    assert [trace["y"] for trace in marks(entropy)] == [[1.0, 1.0], [3.0, 3.0]]
    (memory,) = page.plots_of(DRAWN[1])
    assert [(trace["x"], trace["y"]) for trace in marks(memory)] == [([1, 2, 4], [3.0, 1.5, 0.75])]
    assert "4 documents, step 7." in page.part(DRAWN[2]).replace("\u00a0", " ")


def test_a_study_draws_means_over_seeds_of_one_protocol(tmp_path: Path) -> None:
    content = write_study(tmp_path / "study", sizes=(512, 1024), seeds=(0, 1, 2))
    levels = {512: [], 1024: []}
    for number, arm in enumerate(content["arms"][:-1]):
        levels[arm["vocab_size"]].append(2.0 + 0.1 * number**2)
        write_analyses(
            tmp_path / "study" / arm["folder"], arm["vocab_size"], levels[arm["vocab_size"]][-1]
        )
    odd = content["arms"][-1]
    write_analyses(tmp_path / "study" / odd["folder"], odd["vocab_size"], 9.0, prompts=16)
    page = Page(write_report(tmp_path / "study"))
    means = [statistics.fmean(own) for own in levels.values()]
    along, excess = page.plots_of(DRAWN[0])
    assert [trace["y"] for trace in marks(along)] == [pytest.approx([m, m]) for m in means]
    assert [trace["y"] for trace in marks(excess)] == [pytest.approx([m - 1]) for m in means]
    assert [trace["x"] for trace in marks(excess)] == [[512], [1024]]
    (memory,) = page.plots_of(DRAWN[1])
    assert [trace["x"] for trace in marks(memory)] == [[2.0, 4.0, 8.0]] * 2  # in bytes
    (kinds,) = page.plots_of(DRAWN[2])
    assert [trace["y"] for trace in marks(kinds)] == [
        pytest.approx([-m if greedy else 0.0]) for m in means for greedy in (False, True)
    ]
    assert "1 arm measured by another protocol left out" in page.part(DRAWN[0]).replace(
        "\u00a0", " "
    )
