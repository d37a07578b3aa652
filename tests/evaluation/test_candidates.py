"""Candidate strings as events: figures by hand, signatures apart, gaps and temperatures."""

import doctest
from typing import Any

import numpy as np
import pytest

from calibtrain.evaluation import candidates
from calibtrain.evaluation.candidates import (
    Candidates,
    candidate_log_confidence,
    confidence_gaps,
    error_differences,
    evaluate_candidates,
    fit_candidate_temperature,
)
from calibtrain.metrics.signature import differences, parse_signature

ABOUT = {"corpus": "q", "corpus_hash": "0" * 16, "step": 3, "tokenizer_hash": "1" * 16}
P = [[0.7, 0.2, 0.1], [0.45, 0.55], [0.1, 0.3, 0.6]]
RIGHT = [[1, 0, 0], [1, 0], [0, 0, 1]]


def given(groups: tuple[str, ...] = ("x", "y", "x")) -> Candidates:
    """Three questions whose confidences are P, by log-probabilities up to a constant."""
    scores = [np.log([row]) - 3 for row in P]
    return Candidates("abc", scores, [np.array(row, bool) for row in RIGHT], groups)


def test_every_candidate_ece_is_the_hand_computation() -> None:
    top, every = evaluate_candidates(given(), ABOUT, protocol="own", bins=2)
    # in (0, 0.5]: 0.2 0.1 0.45 0.1 0.3, of which one is right; in (0.5, 1]: 0.7 0.55 0.6, of
    # which two are
    low, high = abs(0.2 + 0.1 + 0.45 + 0.1 + 0.3 - 1), abs(0.7 + 0.55 + 0.6 - 2)
    assert every.results["ece"] == pytest.approx((low + high) / 8)
    assert every.results["tokens"] == 8
    assert every.results["accuracy"] == pytest.approx(3 / 8)
    # top candidates: 0.7 right, 0.55 wrong, 0.6 right, all in the upper bin
    assert top.results["ece"] == pytest.approx(abs(0.7 + 0.55 + 0.6 - 2) / 3)
    assert top.results["accuracy"] == pytest.approx(2 / 3)
    assert top.results["nll"] == pytest.approx(-np.log([0.7, 0.45, 0.6]).mean())
    brier = [0.3**2 + 0.2**2 + 0.1**2, 2 * 0.55**2, 0.4**2 + 0.3**2 + 0.1**2]
    assert top.results["multiclass_brier"] == pytest.approx(np.mean(brier))
    by_group = {row["label"]: row for row in every.results["groups"]}
    assert by_group["y"]["tokens"] == 2
    assert by_group["y"]["ece"] == pytest.approx((abs(0.45 - 1) + 0.55) / 2)


def test_the_twenty_bins_of_the_paper_are_numpys() -> None:
    rng = np.random.default_rng(0)
    scores = [rng.normal(size=(1, 4)) for _ in range(200)]
    right = [np.arange(4) == rng.integers(4) for _ in range(200)]
    data = Candidates(list(map(str, range(200))), scores, right)
    _, every = evaluate_candidates(data, ABOUT, protocol="own")
    p = np.concatenate([np.exp(s[0]) / np.exp(s[0]).sum() for s in scores])
    y = np.concatenate(right)
    bins = np.minimum(19, np.ceil(p * 20).astype(int) - 1)
    gaps = [abs((p[bins == b] - y[bins == b]).sum()) for b in range(20)]
    assert every.results["ece"] == pytest.approx(sum(gaps) / 800)
    interval = every.results["intervals"]["ece"]
    assert interval["lower"] <= every.results["ece"] <= interval["upper"] + 1e-9


def test_signatures_tell_the_kinds_and_the_protocol_apart() -> None:
    first = evaluate_candidates(given(), ABOUT, protocol="own")
    second = evaluate_candidates(given(), ABOUT, protocol="all.end.mean3", temperature=2.0)
    one, other, later = (
        parse_signature(each.results["signatures"]["ece"]) for each in (*first, second[0])
    )
    assert (one.event, other.event) == ("candidate.top.own", "candidate.every.own")
    assert later.event == "candidate.top.all.end.mean3"
    assert differences(one, other) == {
        "event": ("candidate.top.own", "candidate.every.own"),
        "conf": ("max", "each"),
    }
    assert set(differences(one, later)) == {"event", "T"}
    assert first[0].to_dict()["event"] == "candidate"


def test_confidences_do_not_depend_on_a_constant_and_paraphrases_are_averaged() -> None:
    scores = np.log(np.array([[0.2, 0.6, 0.2], [0.5, 0.25, 0.25]]))
    moved = scores + np.array([[-40.0], [7.0]])
    found = np.exp(candidate_log_confidence(moved))
    np.testing.assert_allclose(found, [0.35, 0.425, 0.225])
    hot = np.exp(candidate_log_confidence(scores[:1], 2.0))
    wanted = np.sqrt([0.2, 0.6, 0.2])
    np.testing.assert_allclose(hot, wanted / wanted.sum())
    impossible = np.array([[-np.inf, 0.0, 0.0]])
    np.testing.assert_allclose(np.exp(candidate_log_confidence(impossible)), [0, 0.5, 0.5])


def test_a_paraphrase_that_allows_no_candidate_says_nothing() -> None:
    known = np.log(np.array([[0.2, 0.6, 0.2], [0.5, 0.25, 0.25]]))
    none = np.full((1, 3), -np.inf)
    np.testing.assert_array_equal(
        candidate_log_confidence(np.concatenate([known, none])), candidate_log_confidence(known)
    )
    with pytest.raises(ValueError, match="every candidate has probability 0"):
        candidate_log_confidence(none)
    # nor does it change the temperature
    right = [np.array([True, False, False])] * 2
    two = Candidates(["a", "b"], [known, known], right)
    more = Candidates(["a", "b"], [known, np.concatenate([none, known])], right)
    assert fit_candidate_temperature(more) == fit_candidate_temperature(two)


def test_a_right_candidate_of_probability_0_leaves_the_nll_out_and_is_counted() -> None:
    scores = [np.array([[0.0, -np.inf]]), np.log([[0.75, 0.25]])]
    own = Candidates(["a", "b"], scores, [np.array([False, True]), np.array([True, False])])
    about = {"corpus": "x", "corpus_hash": "0" * 16, "step": 0, "tokenizer_hash": "0" * 16}
    top, every = evaluate_candidates(own, about, protocol="own")
    assert "nll" not in top.results or top.results["nll"] is None
    assert top.results["accuracy"] == 0.5
    assert top.results["mean_confidence"] == pytest.approx(0.875)
    assert every.results["ece"] == pytest.approx((1 + 1 + 0.25 + 0.25) / 4)
    assert "1 questions: the model gives the right candidate probability 0" in top.notes[0]


def test_gaps_are_by_hand_and_by_group() -> None:
    rows = {row["label"]: row for row in confidence_gaps(given())}
    assert list(rows) == [None, "x", "y"]
    pooled = rows[None]
    assert (pooled["questions"], pooled["right"]) == (3, 2)
    assert pooled["when_right"] == pytest.approx(0.65)
    assert pooled["when_wrong"] == pytest.approx(0.55)
    assert pooled["gap"] == pytest.approx(0.1)
    c = np.array([0.7, 0.55, 0.6])
    wanted = (c * c).sum() / c.sum() - (c * (1 - c)).sum() / (1 - c).sum()
    assert pooled["calibrated"] == pytest.approx(wanted)
    assert rows["x"]["gap"] is None  # without a wrong answer
    assert rows["y"]["when_right"] is None


def drawn(sharpness: float, count: int = 900, seed: int = 5) -> Candidates:
    """Questions whose right answers come as often as the softmax of scores / sharpness says."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(count, 4)) * 1.5
    right = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    return Candidates(
        list(map(str, range(count))),
        [sharpness * row[None] for row in logits],
        [np.arange(4) == place for place in right],
        ["g"] * count,
    )


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_is_what_the_scores_were_multiplied_by(sharpness: float) -> None:
    found = fit_candidate_temperature(drawn(sharpness))
    assert found.temperature == pytest.approx(sharpness, rel=0.15)
    assert found.nll_after <= found.nll_before + 1e-12


def test_a_temperature_lowers_the_error_of_scores_that_are_too_sharp() -> None:
    data = drawn(3.0, 600)
    found = error_differences(data.at(3.0), data)
    assert set(found) == {"top_candidate", "every_candidate"}
    assert all(each.upper < 0 for each in found.values())


def test_the_gap_of_calibrated_confidences_is_the_one_that_is_stated() -> None:
    rows = [confidence_gaps(drawn(1.0, 300, seed))[0] for seed in range(60)]
    covered = sum(row["lower"] < row["calibrated"] < row["upper"] for row in rows)
    assert covered >= 51  # of a binomial of 60 at 0.95, fewer have probability 0.001


def test_questions_without_a_right_candidate_are_wrong_and_not_fitted_to() -> None:
    data = Candidates("ab", [np.log([[0.5, 0.5]])] * 2, [np.zeros(2, bool), np.array([1, 0], bool)])
    top, every = evaluate_candidates(data, ABOUT, protocol="own")
    assert top.results["accuracy"] == 0.5
    assert top.results["nll"] is None
    assert every.results["accuracy"] == 0.25
    with pytest.raises(ValueError, match="no question has a right candidate"):
        fit_candidate_temperature(data.chosen([0]))


def test_the_examples_run() -> None:
    found: Any = doctest.testmod(candidates)
    assert found.attempted
    assert not found.failed
