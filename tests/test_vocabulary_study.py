"""The analysis of the vocabulary study: its statistics against other libraries, its verdicts on
arms with known effects, a control with known truth, and the committed tables from their Parquets.
"""

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

pytestmark = pytest.mark.long

STUDY = Path(__file__).parents[1] / "experiments" / "vocabulary"
sys.path.insert(0, str(STUDY))

import analysis  # noqa: E402
import collect  # noqa: E402
import control  # noqa: E402
import figure  # noqa: E402
from hypotheses import OPEN, REFUTED, SUPPORTED, judged, unmatched  # noqa: E402
from slopes import Effect, contrast, holm, mixed, noisy_gaps, slope_intervals  # noqa: E402

from calibtrain.errors import UserError  # noqa: E402
from calibtrain.metrics.calibration import bin_edges  # noqa: E402

LADDER = (256, 512, 1024, 2048, 4096, 8192)
CORPORA = ("a", "b", "c", "d", "e")
RESULTS = [path.parent for path in sorted(STUDY.glob("results/**/arms.parquet"))]


# --- statistics ----------------------------------------------------------------------------------


def test_the_mean_over_corpora_is_students_and_its_smallest_effect_that_of_statsmodels() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 5)
    effect = Effect.of(dict(zip(CORPORA, values, strict=True)))
    found = stats.ttest_1samp(values, 0)
    low, high = found.confidence_interval()
    assert (effect.lower, effect.upper) == pytest.approx((low, high))
    assert effect.p == pytest.approx(found.pvalue)
    power = TTestPower().solve_power(nobs=5, alpha=0.05, power=0.8) * values.std(ddof=1)
    assert effect.smallest == pytest.approx(power, rel=1e-4)
    alike = Effect.of({"a": 0.0, "b": 0.0})
    assert (alike.lower, alike.upper, alike.p) == (0.0, 0.0, 1.0)


def test_p_values_are_adjusted_as_statsmodels_does() -> None:
    p = np.random.default_rng(1).uniform(0, 0.1, 10)
    wanted = multipletests(p, method="holm")[1]
    found = holm({str(place): value for place, value in enumerate(p)} | {"absent": math.nan})
    assert math.isnan(found.pop("absent"))
    assert [*found.values()] == pytest.approx(wanted)


def test_a_slope_is_that_of_least_squares() -> None:
    values = np.random.default_rng(2).normal(size=len(LADDER))
    wanted = np.polyfit(np.log2(LADDER), values, 1)[0]
    assert contrast(LADDER) @ values == pytest.approx(wanted)


def test_a_mixed_model_recovers_a_slope_and_says_when_its_variances_are_at_the_boundary() -> None:
    rng = np.random.default_rng(3)
    rows = []
    for corpus in range(12):
        level, slope = rng.normal(0.02, 0.01), rng.normal(0.002, 0.0005)
        for vocab in LADDER:
            x = math.log2(vocab)
            value = level + slope * (x - 10.5) + rng.normal(0, 0.0003)
            cell = {"capacity": "large", "passes": 4, "log2_vocab": x, "byte_ece": value}
            rows.append({"corpus": str(corpus), **cell})
    arms = pd.DataFrame(rows)
    found = mixed(arms, "byte_ece")
    assert found is not None
    assert found.lower < 0.002 < found.upper
    assert found.upper - found.lower < 0.0015
    assert "boundary" not in found.note
    arms["byte_ece"] = 0.001 * arms.log2_vocab + rng.normal(0, 0.001, len(arms))
    alike = mixed(arms[arms.corpus.isin(["0", "1", "2"])], "byte_ece")
    assert alike is not None
    assert "few corpora" in alike.note


# --- verdicts ------------------------------------------------------------------------------------


def study(**slopes_by_doubling: float) -> pd.DataFrame:
    """Returns arms of the whole design with known slopes, and seeds and corpora that differ a bit.

    A figure with the suffix of a cell (`byte_ece@small`) has that slope there.
    """
    rng = np.random.default_rng(4)
    rows = []
    cells = [("body", "large", 4.0), ("body", "large", 1.0), ("bits", "large", 0.0)]
    cells += [("body", "small", 4.0), ("body", "small", 1.0)]
    figures = ("byte_ece", "byte_ece_t", "byte_signed_gap", "token_ece", "mass_gap_9")
    for corpus in CORPORA:
        own = dict.fromkeys(figures, 0.0) | {name: rng.normal(0, 5e-5) for name in figures}
        for match, capacity, passes in cells:
            for vocab in LADDER:
                if match == "bits" and vocab == 512 and "byte_ece@bits" not in slopes_by_doubling:
                    continue  # the one that needs four passes is that of the headline
                for seed in range(2):
                    x = math.log2(vocab) - 10.5
                    row: dict[str, Any] = {
                        "corpus": corpus,
                        "vocab_size": vocab,
                        "seed": seed,
                        "kind": "byte" if vocab == 256 else "bpe",
                        "match": match,
                        "capacity": capacity,
                        "passes": passes,
                        "log2_vocab": x + 10.5,
                        "byte_text": "same",
                        "byte_bits_per_byte": 2.0,
                        "word_split_ece": 0.05,
                        "word_whole_ece": 0.01,
                        "word_bins": 15,
                        "word_split_events": 4000,
                        "word_whole_events": 4000,
                        "word_split_confidence": 0.3,
                        "word_whole_confidence": 0.5,
                    }
                    for name in figures:
                        slope = slopes_by_doubling.get(name, 0.0)
                        for cell in (match, capacity, f"passes{passes:g}"):
                            slope = slopes_by_doubling.get(f"{name}@{cell}", slope)
                        row[name] = 0.02 * (name == "byte_ece") + (slope + own[name]) * x
                        row[name] += rng.normal(0, 1e-5)
                    row["word_split_ece"] += rng.normal(0, 1e-4)
                    rows.append(row)
    return pd.DataFrame(rows)


def verdicts(arms: pd.DataFrame) -> dict[str, str]:
    return {each.test.name: each.verdict for each in judged(arms)}


def test_nothing_that_moves_is_refuted_and_what_is_absent_is_not_tested() -> None:
    found = verdicts(study())
    assert {found[name] for name in ("headline", "H1", "H4", "H7a", "H7b", "H8")} == {REFUTED}
    assert found["H2"] == REFUTED  # its token ECE does not move either
    assert (found["H3a"], found["H3b"], found["H5"]) == (SUPPORTED, SUPPORTED, SUPPORTED)
    few = study()
    few = few[(few.match == "body") & (few.capacity == "large") & (few.passes == 4)]
    few = few.drop(columns=["word_split_ece", "mass_gap_9"])
    absent = [name for name, verdict in verdicts(few).items() if verdict == "not tested"]
    assert absent == ["H1", "H3a", "H3b", "H4", "H5", "H7a", "H7b"]


@pytest.mark.parametrize(
    ("moving", "wanted"),
    [
        ({"byte_ece": -0.002}, {"headline": SUPPORTED, "H2": REFUTED, "H3a": REFUTED}),
        ({"byte_ece": -0.002, "byte_ece@bits": 0.0}, {"headline": SUPPORTED, "H3a": SUPPORTED}),
        ({"byte_ece_t@bits": 0.001}, {"H3a": SUPPORTED, "H3b": REFUTED}),
        ({"token_ece": 0.004}, {"headline": REFUTED, "H2": SUPPORTED}),
        ({"byte_signed_gap@small": -0.003}, {"H1": SUPPORTED, "H8": REFUTED}),
        ({"byte_signed_gap@small": 0.003}, {"H1": REFUTED}),
        ({"mass_gap_9": -0.001}, {"H4": SUPPORTED}),
        ({"byte_ece": 0.002, "byte_ece@small": -0.002}, {"H7a": SUPPORTED, "H7b": REFUTED}),
        ({"byte_ece": 0.002, "byte_ece@passes1": -0.002}, {"H7b": SUPPORTED}),
        ({"byte_ece": 0.002, "byte_ece@small": 0.004}, {"H7a": REFUTED}),
    ],
)
def test_verdicts_follow_from_known_effects(moving: Any, wanted: dict[str, str]) -> None:
    found = verdicts(study(**moving))
    assert {name: found[name] for name in wanted} == wanted


def test_what_the_study_could_not_have_found_is_left_open() -> None:
    arms = study()
    noise = dict(zip(CORPORA, (0.004, -0.003, 0.002, -0.004, 0.003), strict=True))
    arms["byte_ece"] += arms.corpus.map(noise) * (arms.log2_vocab - 10.5)
    assert verdicts(arms)["headline"] == OPEN
    assert verdicts(arms)["H3a"] == OPEN


def test_a_null_result_must_hold_without_the_noise_too() -> None:
    arms = study()
    arms["byte_ece_corrected"] = arms.byte_ece
    assert verdicts(arms)["headline"] == REFUTED
    arms["byte_ece_corrected"] += 0.001 * arms.log2_vocab
    assert verdicts(arms)["headline"] == OPEN


def test_cells_are_compared_at_the_sizes_that_all_of_them_have() -> None:
    arms = study(byte_ece=0.002)
    few = arms.vocab_size.isin([256, 1024, 8192])
    bent = arms.vocab_size.isin([512, 4096]) * (arms.capacity == "large") * 0.01
    arms["byte_ece"] += bent - (arms.vocab_size == 2048) * (arms.capacity == "large") * 0.02
    is_headline = (arms.match == "body") & (arms.capacity == "large") & (arms.passes == 4)
    found = {each.test.name: each.test for each in judged(arms[few | is_headline])}
    for name in ("H7a", "H7b"):
        effect = found[name].effect
        assert effect is not None
        assert effect.estimate == pytest.approx(0.0, abs=1e-4)
    assert unmatched(arms[few | is_headline]) == []


def test_equal_bits_per_byte_are_compared_on_the_same_bytes_alone() -> None:
    arms = study()
    assert unmatched(arms) == []
    arms.loc[(arms.match == "bits"), "byte_text"] = "other"
    assert unmatched(arms) == [f"{corpus} (V = 512)" for corpus in CORPORA]


# --- the control ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world() -> control.World:
    return control.world(0, (256, 512, 1024), words=400)


def test_the_error_of_a_control_is_that_of_its_law(world: control.World) -> None:
    delta = world.planted(0.01)
    for vocab, wanted in ((256, control.BASE), (1024, control.BASE + 0.01)):
        assert world.error(vocab, world.own_mean, delta) == pytest.approx(wanted)
        moved = world.own_mean + delta * world.inside[vocab]
        confidence = world.likeliest + moved * (1 - world.likeliest)
        bins = np.searchsorted(bin_edges(15)[1:-1], confidence)
        visits = world.model.visits / world.model.visits.sum()
        gaps = np.bincount(bins, visits * (confidence - world.likeliest), 15)
        assert np.abs(gaps).sum() == pytest.approx(wanted)


def test_rows_of_a_control_give_its_gap_over_much_text(world: control.World) -> None:
    texts = list(world.source.sample_documents(1500, 7))
    columns = control.document_columns(world, texts, 1024, world.own_mean, world.planted(0.01))
    difference = columns["confidence"] - columns["correct"]
    error = difference.std() * math.sqrt(len(texts)) / columns["tokens"].sum()
    gap = difference.sum() / columns["tokens"].sum()
    assert gap == pytest.approx(control.BASE + 0.01, abs=4 * error)
    assert error < 0.001


def test_arms_that_are_one_model_have_no_slope(world: control.World) -> None:
    texts = control.drawn_text(world, 0)
    columns = control.document_columns(world, texts, 256, 0.0, 0.0)
    model = noisy_gaps(control.tables(columns))
    for interval in slope_intervals({vocab: [model, model] for vocab in LADDER})[:3]:
        assert interval.estimate == pytest.approx(0.0, abs=1e-15)
        assert interval.lower <= 1e-15
        assert interval.upper >= -1e-15


def test_the_control_finds_what_is_planted_and_nothing_else() -> None:
    worlds = [control.world(seed, (256, 512, 1024, 2048), words=800) for seed in range(4)]
    draws = range(8)
    none = control.check(worlds, 0.0, draws)
    assert none["truth"] == pytest.approx(0.0, abs=1e-12)
    planted = control.check(worlds, 0.01, draws)
    assert planted["truth"] > 0.002
    for found in (none, planted):
        # at a rate of 95 %, 5 or fewer of 8 would cover once in 170 times
        assert found["corrected_cover"] >= 6 / 8
        assert found["cover_these_texts"] >= 0.85  # of 32
        assert found["corrected_mean_estimate"] == pytest.approx(found["truth"], abs=0.0005)
    assert none["cover"] >= 6 / 8
    assert none["found"] <= 2 / 8
    assert planted["found"] >= 7 / 8
    # noise flattens the slope of the plain ECE
    assert 0.75 < planted["mean_estimate"] / planted["truth"] < 1.05


# --- records and results -------------------------------------------------------------------------


def test_arms_that_are_there_twice_are_refused() -> None:
    arm = {"corpus": "kjv", "kind": "bpe", "vocab_size": 512, "capacity": "large", "passes": 4.0}
    arm |= {"match": "body", "seed": 0, "folder": "one"}
    with pytest.raises(UserError, match="two: is the same arm as one"):
        collect.require_distinct([arm, {**arm, "folder": "two"}])


def test_an_analysis_without_results_says_what_makes_them(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"arms\.parquet is missing; collect\.py makes it"):
        analysis.analysed(tmp_path)


def test_a_figure_is_drawn_the_same_twice(tmp_path: Path) -> None:
    levels = json.loads((RESULTS[0] / "findings.json").read_text())["levels"]
    for name in ("one.svg", "other.svg"):
        figure.draw(levels, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()


@pytest.mark.parametrize("folder", RESULTS, ids=lambda path: path.name)
def test_committed_tables_are_those_of_the_committed_parquets(folder: Path) -> None:
    tables, findings = analysis.analysed(folder)
    known = json.loads((folder / "findings.json").read_text())
    new = json.loads(json.dumps(analysis.rounded(findings)))
    for each in (known, new):  # an optimizer's end depends on the version of its library
        each["sentences"] = [line for line in each["sentences"] if "mixed model" not in line]
    for name, fit in known.pop("mixed").items():
        assert new["mixed"][name]["estimate"] == pytest.approx(fit["estimate"], rel=0.05, abs=1e-5)
    del new["mixed"]
    assert_alike(new, known, "findings")
    committed = (folder / "tables.md").read_text()
    assert_alike(without_fits(tables), without_fits(committed), "tables.md")


def without_fits(tables: str) -> list[str]:
    """The lines of the tables but those of mixed models."""
    kept = re.sub(r"## Hierarchical.*?(?=\n## )", "", tables, flags=re.DOTALL)
    return [line for line in kept.splitlines() if "mixed model" not in line]


def assert_alike(found: Any, wanted: Any, where: str) -> None:
    """Asserts that data are the same, numbers (in texts too) to within the last digit shown."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), where
        for key, value in wanted.items():
            assert_alike(found[key], value, f"{where}.{key}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), where
        for place, value in enumerate(wanted):
            assert_alike(found[place], value, f"{where}[{place}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-9), where
    elif isinstance(wanted, str):
        number = r"[+-]?\d+\.\d+"
        assert re.sub(number, "#", found) == re.sub(number, "#", wanted), where
        pairs = zip(re.findall(number, found), re.findall(number, wanted), strict=True)
        for one, other in pairs:
            assert float(one) == pytest.approx(float(other), abs=2e-5 + 1e-3 * abs(float(other)))
    else:
        assert found == wanted, where


# --- what the pages say --------------------------------------------------------------------------


def said(effect: dict[str, Any]) -> str:
    """Returns an effect as the pages have it."""
    return "{estimate:+.4f} [{lower:.4f}, {upper:.4f}]".format(**effect)


def test_the_page_gives_each_hypothesis_the_verdict_that_was_found() -> None:
    found = json.loads((STUDY / "results" / "findings.json").read_text())
    lines = (STUDY / "README.md").read_text().splitlines()
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    for each in found["verdicts"]:
        row = rows[each["name"]]
        assert f"| {each['verdict']} |" in row, row
        if each["effect"]:
            assert said(each["effect"]) in row, (said(each["effect"]), row)


def test_both_first_screens_give_the_effects_that_were_found() -> None:
    effects = json.loads((STUDY / "results" / "findings.json").read_text())["effects"]
    for page in (STUDY / "README.md", STUDY.parents[1] / "README.md"):
        opening = " ".join(page.read_text()[:2500].split())
        for name in ("byte_ece", "byte_signed_gap"):
            assert said(effects[name]) in opening, (page, said(effects[name]))
