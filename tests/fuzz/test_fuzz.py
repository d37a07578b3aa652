"""The fuzz itself: each fault that it looks for is planted and found, and what is right passes."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import child

from fuzz import configs, data, imports, runs
from fuzz.children import Ended
from fuzz.damage import ODD_VALUES, altered, damage_file
from fuzz.verdict import (
    LONGEST,
    Case,
    difference,
    tree,
    wrong_with_ending,
    wrong_with_figures,
    wrong_with_files,
)

pytestmark = pytest.mark.long

TRACE = "Traceback (most recent call last):\n  File x\nValueError: y\n"
SAID = "calibtrain: c.yaml: seed: 3.5 is not allowed\n"


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (Ended(0, "{}", "", 1.0), ""),
        (Ended(0, "", "note: run/x: was damaged and is made again\n", 1.0), ""),
        (Ended(2, "", SAID, 1.0), ""),
        (Ended(75, "", f"fitting: 3 of 5\n{SAID}", 1.0), ""),
        (Ended(1, "", SAID, 1.0), "status 1"),
        (Ended(-11, "", SAID, 1.0), "status -11"),
        (Ended(None, "", "", 30.0), "not done after 30 s"),
        (Ended(2, "", TRACE + SAID, 1.0), "a traceback"),
        (Ended(0, TRACE, "", 1.0), "a traceback"),
        (Ended(0, "", "Exception ignored in: x\n", 1.0), "an exception that was ignored"),
        (Ended(2, "", "", 1.0), "0 lines begin"),
        (Ended(2, "", SAID * 2, 1.0), "2 lines begin"),
        (Ended(2, "", f"calibtrain: {'x' * LONGEST}", 1.0), "a line of"),
    ],
)
def test_endings(ended: Ended, words: str) -> None:
    wrong = wrong_with_ending(ended)
    assert bool(wrong) == bool(words)
    assert words in "; ".join(wrong)


@pytest.mark.parametrize(
    ("status", "before", "after", "words"),
    [
        (0, {}, {"run": "folder", "run/config.yaml": "1"}, ""),
        (2, {}, {"cache/stores/a": "folder", "run/.lock": "1"}, ""),
        (2, {}, {"new": "folder", "new/config.yaml": "1", "new/metrics.jsonl": "2"}, ""),
        (0, {}, {"run/.config.yaml.tmp-7": "1"}, "half-written: run/.config.yaml.tmp-7"),
        (2, {}, {"cache/stores/.a.tmp-x/ids.bin": "1", "cache/stores/.a.tmp-x": "folder"}, "half"),
        (2, {}, {"new": "folder", "new/tokenizer": "folder"}, "made though it failed: new"),
        (2, {"run/run.json": "1"}, {"run/run.json": "2"}, "changed though it failed: run/run.json"),
        (2, {"run/run.json": "1"}, {}, "removed though it failed: run/run.json"),
    ],
)
def test_files(status: int, before: dict[str, str], after: dict[str, str], words: str) -> None:
    wrong = wrong_with_files(Ended(status, "", SAID, 1.0), before, after, ("new",))
    assert bool(wrong) == bool(words)
    assert words in "; ".join(wrong)


@pytest.mark.parametrize(
    ("said", "got", "options", "words"),
    [
        ("", {"ece": 1.0}, {}, ""),
        ("note: ids.bin: was damaged", {"ece": 2.0}, {}, ""),
        ("", {"ece": 2.0}, {}, "ece is 2.0, was 1.0"),
        ("note: offsets.npy: was damaged", {"ece": 2.0}, {}, "not noticed"),
        ("", {"ece": 1.0}, {"must_notice": True}, "no note names ids.bin"),
        ("", {"ece": 1.0}, {"changes": True}, "did not change"),
        ("", {"ece": 2.0}, {"changes": True}, ""),
    ],
)
def test_figures(said: str, got: Any, options: dict[str, bool], words: str) -> None:
    wrong = wrong_with_figures(said, got, {"ece": 1.0}, Case("", (), ("ids.bin",), **options))
    assert bool(wrong) == bool(words)
    assert words in "; ".join(wrong)


def test_differences_are_found_wherever_they_are() -> None:
    assert difference({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}) == ""
    assert difference({"a": [1, {"b": 3}]}, {"a": [1, {"b": 2}]}) == "a[1].b is 3, was 2"
    assert difference({"a": 1}, {"a": 1, "b": 2}) == "b is missing"


def test_a_tree_shows_every_change(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    before = tree(tmp_path)
    for change in (
        lambda: (tmp_path / "a" / "b").write_text("y"),
        lambda: (tmp_path / "a" / "c").mkdir(),
        lambda: (tmp_path / "link").unlink(),
    ):
        change()
        after = tree(tmp_path)
        assert after != before
        before = after


def ends(status: int) -> Callable[[], None]:
    return lambda: sys.exit(status)


def loops() -> None:
    while True:
        pass


def fails() -> None:
    print("so far", flush=True)
    raise ValueError("planted")


@pytest.mark.parametrize(
    ("run", "status", "words"),
    [
        (lambda: None, 0, ""),
        (ends(2), 2, ""),
        (fails, 1, "ValueError: planted"),
        (loops, None, ""),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), -9, ""),
    ],
)
def test_a_child_ends_as_a_process_would(
    run: Callable[[], None], status: int | None, words: str, tmp_path: Path
) -> None:
    out, err = tmp_path / "out", tmp_path / "err"
    found, seconds = child(run, out, err, 20 if status is not None else 0.3)
    assert found == status
    assert seconds < 20
    assert words in err.read_text()
    assert out.read_text() == ("so far\n" if run is fails else "")


def test_damage_changes_what_it_says_and_is_that_of_its_seed(tmp_path: Path) -> None:
    for seed in range(60):
        results = []
        for again in range(2):
            folder = tmp_path / f"{seed}-{again}"
            folder.mkdir()
            (folder / "a.json").write_text('{"a": [1, 2, {"b": "x"}], "c": 0.5}')
            (folder / "b.bin").write_bytes(bytes(range(200)))
            before = tree(folder)
            rng = random.Random(seed)
            said = damage_file(folder / ("a.json" if seed % 2 else "b.bin"), rng)
            results.append((said, tree(folder)))
            assert said
            assert tree(folder) != before or "zeroed" in said or "{}" in said, said
        assert results[0] == results[1]
    assert len({altered({"a": 1}, random.Random(seed))[1] for seed in range(200)}) > len(ODD_VALUES)


@pytest.mark.parametrize("kind", [configs, data, imports, runs])
def test_cases_are_those_of_their_seed(kind: Any, tmp_path: Path) -> None:
    """For configurations, which need nothing to be made of; the others name what they do."""
    assert kind.COUNT >= 100
    if kind is not configs:
        return
    configs.prepare(tmp_path, tmp_path)
    made = [
        [configs.make(n, random.Random(n), tmp_path, tmp_path / f"{again}-{n}") for n in range(60)]
        for again in range(2)
    ]
    assert made[0] == made[1]
    assert sum(len(case.steps) == 2 for case in made[0]) > 10  # trained, not only read


def test_a_case_is_replayed_in_a_forked_child() -> None:
    """From the command line to the summary; in a process of its own, since JAX runs in this one."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--only", "configs", "--case", "2", "--seconds", "120"],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'tests'}"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "calibtrain config show c.yaml" in done.stdout
    assert "configs: 0 ok, 1 refused, 0 note, 0 FAIL" in done.stdout
