"""The benchmark of coverage knows the truth, and goes on where it ended."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.coverage import SETTINGS, Setting, corpus, read, table, truth
from calibtrain.evaluation.event_figures import compute_results


@pytest.mark.long
@pytest.mark.parametrize("lengths", ["equal", "longer-easier"])
def test_figures_of_many_documents_tend_to_the_truth(lengths: str) -> None:
    setting = Setting(3000, lengths, 1.3, 0.3)
    (sums,) = corpus(np.random.default_rng(0), setting)
    found, true = compute_results(sums), truth(setting)
    wide = 3 if lengths == "equal" else 6  # few documents hold most events
    for name, interval in found["intervals"].items():
        half = max(interval["upper"] - interval["lower"], 1e-4) / 2
        assert abs(found[name] - true[name]) < wide * half, name


def test_a_calibrated_model_has_no_error_and_a_colder_one_has() -> None:
    true = truth(Setting(9, "equal", 1.0, 0.0))
    for name in ("ece", "smooth_calibration_error", "kolmogorov_smirnov_error", "signed_gap"):
        assert true[name] == pytest.approx(0, abs=1e-4), name
    apart = truth(Setting(9, "equal", 1.0, 0.0, 1.3))
    assert apart["ece - other"] < -0.02
    assert apart["nll - other"] < 0


def test_lengths_are_unequal_where_they_say_so() -> None:
    many = dataclasses.replace(SETTINGS["60x300-unequal-1"], documents=100_000)
    sizes = many.sizes(np.random.default_rng(0))
    assert np.log(sizes).std() == pytest.approx(1.5, rel=0.05)
    assert sizes.mean() == pytest.approx(300, rel=0.1)


@pytest.mark.long
def test_a_call_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    file = tmp_path / "coverage.jsonl"
    command = [sys.executable, "-m", "benchmarks.coverage", file, "--only", "5x300-equal-1"]
    for corpora in ("1", "2"):
        subprocess.run([*command, "--corpora", corpora], check=True)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["setting"] for line in lines] == ["5x300-equal-1"] * 2
    assert lines[0]["sides"] != {}
    (found,) = table(read(file))
    assert found["corpora"] == 2
    assert set(found["covered"].values()) <= {0.0, 50.0, 100.0} | {
        share for name, share in found["covered"].items() if name.endswith("[groups]")
    }
