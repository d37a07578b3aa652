"""Metrics equal those of scikit-learn, uncertainty-calibration, relplot, torchmetrics and netcal.

Each on 200 random and awkward inputs; where one of them is wrong, a test says in what.
torchmetrics and netcal bring torch along, gigabytes of it on many machines, and are compared with
only where they are installed; uncertainty-calibration does the same binning without.
"""

import functools
from typing import Any

import calibration as uncertainty_calibration
import numpy as np
import pytest
import relplot
import sklearn.metrics
from cases import predictions

from calibtrain.metrics import (
    area_under_risk_coverage,
    area_under_roc,
    average_calibration_error,
    brier_score,
    classwise_calibration_error,
    debiased_calibration_error,
    expected_calibration_error,
    full_calibration_error,
    kolmogorov_smirnov_error,
    log_loss,
    maximum_calibration_error,
    multiclass_brier_score,
    nll,
    smooth_calibration_error,
    sweep_calibration_error,
    top_k_calibration_error,
)
from calibtrain.readout import TokenStats

CASES = 200
close = functools.partial(pytest.approx, rel=1e-6, abs=1e-6)


def binned_by(edges: Any, confidence: Any, correct: Any) -> Any:
    """uncertainty-calibration's bins, those that hold anything."""
    data = list(zip(confidence, correct, strict=True))
    return [b for b in uncertainty_calibration.bin(data, edges) if len(b)]


@pytest.mark.parametrize("bins", [2, 10, 15])
def test_binned_errors_equal_those_of_uncertainty_calibration(bins: int) -> None:
    for kind, confidence, correct in predictions(CASES, 120):
        edges = uncertainty_calibration.get_equal_prob_bins(confidence, num_bins=bins)
        filled = binned_by(edges, confidence, correct)
        gaps = [abs(uncertainty_calibration.difference_mean(b)) for b in filled]
        ece = uncertainty_calibration.get_ece(confidence, correct.astype(int), num_bins=bins)
        got = [
            metric(confidence, correct, bins=bins)
            for metric in (
                expected_calibration_error,
                maximum_calibration_error,
                average_calibration_error,
            )
        ]
        assert got == close([ece, max(gaps), np.mean(gaps)]), kind
        debiased = debiased_calibration_error(confidence, correct, bins=bins, scheme="width")
        assert debiased == close(uncertainty_calibration.unbiased_l2_ce(filled)), kind
        square = debiased_calibration_error(
            confidence, correct, bins=bins, scheme="width", squared=True
        )
        assert square == close(uncertainty_calibration.unbiased_square_ce(filled)), kind


@pytest.mark.parametrize("bins", [2, 10, 15])
def test_equal_mass_errors_equal_those_of_uncertainty_calibration(bins: int) -> None:
    """Where its bins can hold equal mass: a multiple of the bins, all values distinct."""
    for kind, confidence, correct in predictions(CASES, 120, ties=False):
        labels = correct.astype(int)
        got = expected_calibration_error(confidence, correct, bins=bins, scheme="mass")
        want = uncertainty_calibration.get_ece_em(confidence, labels, num_bins=bins)
        assert got == close(want), kind
        got = debiased_calibration_error(confidence, correct, bins=bins)
        want = uncertainty_calibration.lower_bound_scaling_ce(confidence, labels, num_bins=bins)
        assert got == close(want), kind


def test_scores_and_ranking_equal_those_of_scikit_learn() -> None:
    for kind, confidence, correct in predictions(CASES, 150):
        weights = np.random.default_rng(1).random(150)
        given = {"sample_weight": weights}
        brier = sklearn.metrics.brier_score_loss(correct, confidence, pos_label=1, **given)
        assert brier_score(confidence, correct, weights=weights) == close(brier), kind
        inside = np.clip(confidence, 1e-3, 1 - 1e-3)
        loss = sklearn.metrics.log_loss(correct, inside, labels=[0, 1], **given)
        assert log_loss(inside, correct, weights=weights) == close(loss), kind
        if 0 < correct.mean() < 1:
            area = sklearn.metrics.roc_auc_score(correct, confidence, **given)
            assert area_under_roc(confidence, correct, weights=weights) == close(area), kind


def test_the_area_under_risk_coverage_equals_that_of_uncertainty_calibration() -> None:
    for kind, confidence, correct in predictions(CASES, 120, ties=False):
        accuracy, _ = uncertainty_calibration.get_selective_stats(confidence, correct)
        assert area_under_risk_coverage(confidence, correct) == close(1 - accuracy), kind


def test_the_ks_error_equals_its_definition() -> None:
    for kind, confidence, correct in predictions(CASES, 80):
        gaps = [np.sum((confidence - correct)[confidence <= t]) / 80 for t in confidence]
        assert kolmogorov_smirnov_error(confidence, correct) == close(np.abs(gaps).max()), kind


def test_smooth_ece_equals_that_of_relplot() -> None:
    """To 1e-3: away from 0 and 1, and up to the bandwidth at which its kernel is cut off."""
    compared = 0
    for kind, confidence, correct in predictions(CASES, 400, ties=False):
        confidence = 0.01 + 0.98 * confidence
        want, sigma = relplot.smECE(confidence, correct, return_width=True)
        if sigma < 0.15:
            got = smooth_calibration_error(confidence, correct)
            assert got == pytest.approx(want, abs=1e-3), kind
            compared += 1
    assert compared > 80


def direct_smooth_error(confidence: Any, correct: Any, sigma: float) -> float:
    """The definition: an integral over t of a sum over predictions and their reflections."""
    t = (np.arange(20_000) + 0.5) / 20_000
    total = np.zeros_like(t)
    for c, y in zip(confidence, correct, strict=True):
        for image in np.concatenate([c + 2 * np.arange(-6, 7), -c + 2 * np.arange(-6, 7)]):
            total += np.exp(-0.5 * ((t - image) / sigma) ** 2) * (c - y)
    return float(np.abs(total).mean() / sigma / np.sqrt(2 * np.pi) / len(confidence))


@pytest.mark.parametrize("sigma", [0.01, 0.1, 1.0])
def test_smooth_ece_equals_its_definition_at_every_bandwidth(sigma: float) -> None:
    for kind, confidence, correct in predictions(8, 12):
        got = smooth_calibration_error(confidence, correct, sigma=sigma)
        want = direct_smooth_error(confidence, correct, sigma)
        assert got == pytest.approx(want, abs=1e-4), kind


def authors_sweep(confidence: Any, correct: Any, limit: int) -> tuple[float, int]:
    """Roelofs et al., algorithm 1: whole predictions to bins, one bin more at a time."""
    order = np.argsort(confidence)
    confidence, correct = confidence[order], correct[order]
    bins = 1
    while bins < limit:
        parts = np.array_split(correct, bins + 1)
        if (np.diff([part.mean() for part in parts]) < 0).any():
            break
        bins += 1
    parts = zip(*(np.array_split(array, bins) for array in (confidence, correct)), strict=True)
    return sum(abs(np.sum(c - y)) for c, y in parts) / len(correct), bins


def test_the_sweep_equals_its_definition() -> None:
    """2,520 can be divided by every number of bins up to 10."""
    compared = 0
    for kind, confidence, _ in predictions(CASES, 2520, ties=False):
        rng = np.random.default_rng(compared)
        correct = (rng.random(2520) < 0.4 + 0.1 * confidence).astype(float)
        want, bins = authors_sweep(confidence, correct, 10)
        assert sweep_calibration_error(confidence, correct, max_bins=10) == close(want), kind
        compared += bins < 10
    assert compared > 100


def multiclass(seed: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(60, 7)) * rng.choice([0.1, 1, 5])
    probability = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    if seed % 3 == 0:  # certainty, exactly
        probability[:10] = np.eye(7)[rng.integers(0, 7, 10)]
    return probability, rng.integers(0, 7, 60)


def test_multiclass_errors_equal_those_of_uncertainty_calibration_and_scikit_learn() -> None:
    for seed in range(CASES):
        probability, labels = multiclass(seed)
        one_hot = np.eye(7)[labels].astype(int)
        want = uncertainty_calibration.get_ece(probability, labels, num_bins=10)
        assert top_k_calibration_error(probability, labels, k=1, bins=10) == close(want)
        want = uncertainty_calibration.get_ece(probability, labels, num_bins=10, mode="marginal")
        assert classwise_calibration_error(probability, labels, bins=10) == close(want)
        want = uncertainty_calibration.get_ece(probability.ravel(), one_hot.ravel(), num_bins=10)
        assert full_calibration_error(probability, labels, bins=10) == close(want)
        stats = TokenStats(
            nll=-np.log(np.maximum(probability[np.arange(60), labels], 1e-15)),
            sum_squares=(probability**2).sum(-1),
        )
        want = sklearn.metrics.brier_score_loss(
            labels, probability, labels=range(7), scale_by_half=False
        )
        assert multiclass_brier_score(stats) == close(want)
        if seed % 3:
            assert nll(stats) == close(
                sklearn.metrics.log_loss(labels, probability, labels=range(7))
            )


@pytest.mark.parametrize("norm", ["l1", "max"])
def test_binned_errors_equal_those_of_torchmetrics(norm: str) -> None:
    """Away from edges: its bins are closed on the left, and 1.0 opens an extra one."""
    reason = "torchmetrics needs torch, which the development requirements leave out"
    classification = pytest.importorskip(
        "torchmetrics.functional.classification", reason=reason, exc_type=ImportError
    )
    import torch

    metric = expected_calibration_error if norm == "l1" else maximum_calibration_error
    for kind, confidence, correct in predictions(CASES, 120, ties=False):
        want = classification.binary_calibration_error(
            torch.tensor(confidence), torch.tensor(correct.astype(int)), n_bins=15, norm=norm
        )
        assert metric(confidence, correct) == close(float(want)), kind
    confidence, correct = np.array([0.95, 1.0]), np.array([1.0, 0.0])
    theirs = classification.binary_calibration_error(
        torch.tensor(confidence), torch.tensor(correct.astype(int)), n_bins=10, norm="l1"
    )
    assert float(theirs) == close((0.05 + 1.0) / 2)  # two bins, where one holds both
    assert expected_calibration_error(confidence, correct, bins=10) == close(0.95 / 2)


@pytest.mark.parametrize("name", ["ECE", "MCE", "ACE"])
def test_binned_errors_equal_those_of_netcal(name: str) -> None:
    """Away from edges, where its bins are closed on the left."""
    reason = "netcal needs torch, which the development requirements leave out"
    netcal = pytest.importorskip("netcal.metrics", reason=reason, exc_type=ImportError)
    metric = {
        "ECE": expected_calibration_error,
        "MCE": maximum_calibration_error,
        "ACE": average_calibration_error,
    }[name]
    for kind, confidence, correct in predictions(CASES, 120, ties=False):
        want = getattr(netcal, name)(bins=15).measure(confidence, correct.astype(int))
        assert metric(confidence, correct) == close(float(want)), kind


def test_relplot_opens_an_extra_bin_for_certainty() -> None:
    """1.0 and 0.95 share the last of ten bins, where their gaps nearly cancel."""
    confidence, correct = np.array([0.95, 1.0]), np.array([1.0, 0.0])
    assert relplot.metrics.binnedECE(confidence, correct, nbins=10) == close((0.05 + 1.0) / 2)
    assert expected_calibration_error(confidence, correct, bins=10) == close(0.95 / 2)


def test_relplot_counts_certainty_half() -> None:
    """Half are certain and right, half are one half and wrong: the gap is 1/4, theirs 1/3.

    Its reflection about the last point of its grid does not repeat that point.
    """
    confidence, correct = np.repeat([1.0, 0.5], 50), np.repeat([1.0, 0.0], 50)
    assert relplot.smECE(confidence, correct) == pytest.approx(1 / 3, abs=0.01)
    assert smooth_calibration_error(confidence, correct) == close(1 / 4)


def test_scikit_learn_clips_certainty_that_was_wrong() -> None:
    """An impossible event happened: infinitely many nats, not 36."""
    loss = sklearn.metrics.log_loss([0, 1], [1.0, 1.0], labels=[0, 1])
    assert np.isfinite(loss)
    assert log_loss(np.ones(2), np.array([0.0, 1.0])) == np.inf


def test_scikit_learn_and_uncertainty_calibration_answer_where_there_is_no_answer() -> None:
    """No class to rank against; no number for a confidence."""
    with pytest.warns(sklearn.exceptions.UndefinedMetricWarning):
        sklearn.metrics.roc_auc_score([1, 1], [0.2, 0.3])
    with pytest.raises(ValueError, match="correct"):
        area_under_roc(np.array([0.2, 0.3]), np.ones(2))
    uncertainty_calibration.get_ece(np.array([np.nan, 0.5]), np.array([1, 0]))
    with pytest.raises(ValueError, match="confidence"):
        expected_calibration_error(np.array([np.nan, 0.5]), np.array([1.0, 0.0]))


def test_of_a_known_model_full_and_classwise_ece_are_what_they_must_be() -> None:
    """Targets drawn from p: p itself errs by noise alone, p at another temperature by its truth.

    The truth is the expectation over targets: |sum of q - p| over the pairs of each bin of q. Noise
    of a bin's sum of N targets is below sqrt(N), and there are 15 bins, of 6 classes each.
    """
    rng = np.random.default_rng(0)
    tokens, vocab = 40_000, 6
    logits = rng.normal(size=(tokens, vocab)) * 2
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (logits, logits / 2))
    labels = (p.cumsum(-1) < rng.random((tokens, 1))).sum(-1)
    for metric, groups in ((full_calibration_error, 1), (classwise_calibration_error, vocab)):
        noise = np.sqrt(15 * groups / tokens)  # of sums that add up to `tokens`, at most
        assert metric(p, labels, per="token") < noise
        edges = np.arange(1, 15) / 15
        index = np.searchsorted(edges, q, side="left")
        if groups > 1:
            index += 15 * np.arange(vocab)
        truth = np.abs(np.bincount(index.ravel(), (q - p).ravel())).sum() / tokens
        assert truth > 5 * noise
        assert metric(q, labels, per="token") == pytest.approx(truth, abs=noise)
