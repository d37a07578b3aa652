"""A perfect model of a source has no calibration error and costs the entropy; intervals know it."""

import itertools

import numpy as np
import pytest

from benchmarks.truth import Model, intervals
from calibtrain.config import MarkovConfig
from calibtrain.data.corpora.synthetic import markov_source
from calibtrain.evaluation.event_figures import compute_results
from calibtrain.evaluation.figure_intervals import main_intervals, thorough_intervals
from calibtrain.metrics import histogram_metrics

SOURCE = markov_source(MarkovConfig(words=20, successors=4, mean_document_words=40.0))
ERRORS = (
    *("ece", "ece_mass", "debiased_calibration_error", "sweep_calibration_error"),
    *("smooth_calibration_error", "kolmogorov_smirnov_error", "maximum_calibration_error"),
    *("average_calibration_error", "entropy_calibration_error"),
)


def test_the_truth_of_a_perfect_model_is_the_entropy_and_no_error() -> None:
    truth = Model.of(SOURCE).truth()
    for name in ("bits_per_byte", "entropy_bits_per_byte"):
        assert truth[name] == pytest.approx(SOURCE.entropy_bits_per_byte, rel=1e-9)
    for name in ERRORS:
        assert truth[name] == pytest.approx(0, abs=1e-6), name
    assert truth["accuracy"] == pytest.approx(truth["mean_confidence"])
    wrong = Model.of(SOURCE, 2.0).truth()
    assert wrong["bits_per_byte"] > truth["bits_per_byte"]
    assert wrong["accuracy"] == pytest.approx(truth["accuracy"])  # a temperature keeps the order
    assert all(wrong[name] > 0.02 for name in ERRORS)


def test_figures_of_many_documents_tend_to_the_truth() -> None:
    texts = list(SOURCE.sample_documents(3000, 5))
    for temperature in (1.0, 1.5):
        model = Model.of(SOURCE, temperature)
        found, truth = compute_results(model.sums(texts)), model.truth()
        for name, estimate, interval in intervals(found):
            width = max(interval["upper"] - interval["lower"], 1e-5)
            assert abs(estimate - truth[name]) < 2 * width, (temperature, name)


def lower_ends(model: Model, texts: list[str]) -> dict[str, float]:
    sums = model.sums(texts)
    found = main_intervals(sums, 200)
    figures = histogram_metrics(sums.histogram)
    found |= thorough_intervals(sums, figures)
    return {name: found[name].lower for name in ERRORS}


def test_intervals_hold_0_for_a_perfect_model() -> None:
    """20 corpora: fewer than 15 would happen to a 95 % interval once in 2,500 times."""
    drawn, model = SOURCE.sample_documents(20 * 40, 2), Model.of(SOURCE)
    found = [lower_ends(model, list(itertools.islice(drawn, 40))) for _ in range(20)]
    for name in ERRORS:
        assert sum(lower[name] == 0 for lower in found) >= 15, name


def test_intervals_leave_out_0_for_a_wrong_model() -> None:
    found = lower_ends(Model.of(SOURCE, 2.0), list(SOURCE.sample_documents(300, 3)))
    assert min(found.values()) > 0.01


def test_results_do_not_depend_on_when_they_are_read() -> None:
    texts = list(SOURCE.sample_documents(30, 1))
    first, again = (compute_results(Model.of(SOURCE).sums(texts)) for _ in range(2))
    np.testing.assert_equal(first, again)
