"""H6's rule: slopes, their interval and the verdict, on drifts whose slope is known."""

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api as sm

from calibtrain.analysis.entropy import Protocol, measure_entropy
from calibtrain.analysis.of_run import Opened
from calibtrain.runs.analysis_records import EntropyRecord

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
sys.path[:0] = [str(EXPERIMENTS), str(EXPERIMENTS / "entropy-rate")]

import drift  # noqa: E402
import over_seeds  # noqa: E402

RISING, FLAT = 0.05, 0.0


def drifts(slope: float, noise: float, corpora: tuple[str, ...] = ("kjv", "stdlib")) -> Any:
    rng = np.random.default_rng(0)
    return {
        (corpus, seed): {
            vocab: float(slope * np.log2(vocab) + noise * rng.normal()) for vocab in drift.LADDER
        }
        for corpus in corpora
        for seed in range(3)
    }


@pytest.mark.parametrize(
    ("slope", "noise", "said"),
    [
        (RISING, 0.001, "supported"),
        (-RISING, 0.001, "refuted"),
        (FLAT, 0.001, "refuted"),
        (FLAT, 0.5, "not decided"),
    ],
)
def test_a_known_slope_is_judged_by_the_rule(slope: float, noise: float, said: str) -> None:
    found = drift.slopes(drifts(slope, noise))
    assert drift.verdict(found) == said
    if noise < 0.01:
        assert found["mean"] == pytest.approx(slope, abs=0.001)


def test_a_rise_of_one_corpus_alone_does_not_support_it() -> None:
    one, other = drifts(3 * RISING, 0.001, ("kjv",)), drifts(-RISING / 10, 0.001, ("stdlib",))
    assert drift.verdict(drift.slopes({**one, **other})) == "not decided"


def test_the_interval_is_that_of_a_regression_on_the_corpora() -> None:
    """The mean of the corpora's means: a linear hypothesis about the cells of an OLS."""
    found = drift.slopes(drifts(RISING, 0.1))
    values = [slope for own in found["slopes"].values() for slope in own]
    cells = np.kron(np.eye(2), np.ones((3, 1)))
    fit = sm.OLS(values, cells).fit().t_test([0.5, 0.5])
    low, high = fit.conf_int(alpha=0.05)[0]
    assert found["degrees_of_freedom"] == 4
    assert found["mean"] == pytest.approx(float(fit.effect[0]))
    assert found["half_width"] == pytest.approx((high - low) / 2)


def test_a_seed_without_the_ends_of_the_ladder_is_left_out() -> None:
    some = drifts(RISING, 0.0)
    del some[("kjv", 2)][8192]
    found = drift.slopes(some)
    assert {corpus: len(own) for corpus, own in found["slopes"].items()} == {"kjv": 2, "stdlib": 3}
    assert drift.verdict(drift.slopes({("kjv", 0): some[("kjv", 0)]})) == "not decided"


def test_arms_in_the_file_are_not_measured_again(
    tmp_path: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Path] = []

    def measure(run: Path) -> dict[str, Any]:
        made.append(run)
        return {"value": {"estimate": 1 / 3}}

    file = tmp_path / "results.json"
    given = over_seeds.run_parser(None, file).parse_args([str(finished_run)])
    (first,) = over_seeds.measured_runs(given, {"prompts": 3}, measure)
    (again,) = over_seeds.measured_runs(given, {"prompts": 3}, measure)
    assert made == [finished_run]
    assert first == again
    assert (first.corpus, first.value.estimate) == ("markov", 0.333333)
    assert "read from" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="measured by another protocol"):
        over_seeds.measured_runs(given, {"prompts": 4}, measure)
    given.runs = []
    assert over_seeds.measured_runs(given, {"prompts": 4}, measure) == [first]
    file.unlink()
    with pytest.raises(SystemExit, match="is not there; name runs"):
        over_seeds.measured_runs(given, {"prompts": 3}, measure)


@pytest.mark.long
def test_an_analysis_of_another_protocol_is_made_again(tmp_path: Path, finished_run: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    protocol = Protocol(prompts=2, prefix=8, reference=16, width=8)

    def measured(asked: Protocol) -> Callable[[Opened], Any]:
        return lambda opened: measure_entropy(opened, asked, calibrate="none")

    def found(asked: Protocol, again: Callable[[Opened], Any]) -> dict[str, Any]:
        return over_seeds.analysed(run, EntropyRecord, "entropy", dataclasses.asdict(asked), again)

    found(protocol, measured(protocol))
    kept = found(protocol, lambda opened: pytest.fail("it was there"))
    assert [row["name"] for row in kept["rows"]] == ["text", "ancestral"]
    other = dataclasses.replace(protocol, seed=1)
    assert found(other, measured(other))["protocol"]["seed"] == 1
