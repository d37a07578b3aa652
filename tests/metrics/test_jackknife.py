"""Student's intervals over documents: equal to scipy's where documents are, and known by law."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from calibtrain.metrics import (
    bootstrap,
    effective_documents,
    student_difference,
    student_interval,
)
from calibtrain.metrics.jackknife import student_figures


def mean(sums: Any) -> Any:
    return sums[..., 1] / sums[..., 0]


def unequal(rng: Any, documents: int) -> Any:
    """Sums of documents of lognormal length, each with a mean of its own about 3."""
    events = np.round(np.exp(rng.normal(5, 1.5, documents))) + 1
    means = rng.normal(3, 0.3, documents) + rng.normal(0, 1.5, documents) / np.sqrt(events)
    return np.column_stack([events, events * means])


def test_equal_documents_have_students_interval_of_their_means() -> None:
    values = np.random.default_rng(0).normal(3, 2, 12)
    sums = np.column_stack([np.full(12, 7.0), 7 * values])
    found = student_interval(sums, mean, level=0.9)
    low, high = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert [found.lower, found.upper] == pytest.approx([low, high])
    assert found.standard_error == pytest.approx(scipy.stats.sem(values))
    assert found.bias == pytest.approx(0, abs=1e-12)


def test_the_difference_of_two_models_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(0, 5, 9)
    one, other = (hard + shift + rng.normal(0, 0.1, 9) for shift in (1.0, 1.2))
    first, second = (np.column_stack([np.full(9, 4.0), 4 * v]) for v in (one, other))
    found = student_difference(first, second, mean)
    low, high = scipy.stats.ttest_rel(one, other).confidence_interval()
    assert [found.lower, found.upper] == pytest.approx([low, high])
    same = student_difference(first, first, mean)
    assert (same.lower, same.estimate, same.upper) == (0, 0, 0)


def test_the_standard_error_of_a_ratio_is_its_jackknife() -> None:
    sums = unequal(np.random.default_rng(2), 15)
    left_out = [mean(np.delete(sums, at, axis=0).sum(0)) for at in range(15)]
    found = student_interval(sums, mean)
    want = math.sqrt(14) * np.std(left_out)
    assert found.standard_error == pytest.approx(want)
    freedom = sums[:, 0].sum() ** 2 / (sums[:, 0] ** 2).sum() - 1
    assert found.upper - found.estimate == pytest.approx(scipy.stats.t.ppf(0.975, freedom) * want)


def test_many_documents_have_the_interval_of_the_bootstrap() -> None:
    rng = np.random.default_rng(3)
    sums = np.column_stack([np.full(400, 5.0), rng.gamma(2, 1, 400)])
    mine, theirs = student_interval(sums, mean), bootstrap(sums, mean, resamples=4000)
    assert [mine.lower, mine.upper] == pytest.approx([theirs.lower, theirs.upper], rel=0.01)


def test_neither_order_nor_units_change_an_interval() -> None:
    rng = np.random.default_rng(4)
    sums = unequal(rng, 20)
    found = student_interval(sums, mean)
    ends = [found.lower, found.upper]
    moved = student_interval(sums[rng.permutation(20)], mean)
    assert [moved.lower, moved.upper] == pytest.approx(ends)
    fewer = student_interval(sums / 10, mean)  # ten times as few events of the same kinds
    assert [fewer.lower, fewer.upper] == pytest.approx(ends)
    in_bits = student_interval(sums, lambda s: mean(s) / math.log(2))
    assert [in_bits.lower, in_bits.upper] == pytest.approx([end / math.log(2) for end in ends])


def test_events_may_lie_in_cells() -> None:
    """Documents count by all of their events, wherever these lie."""
    rng = np.random.default_rng(5)
    cells = rng.gamma(0.5, 10, (12, 8, 3))
    flat = np.column_stack([cells[:, :, 0].sum(1), cells[:, :, 1].sum(1)])
    in_cells = student_interval(cells, lambda s: s[..., 1].sum(-1) / s[..., 0].sum(-1))
    assert in_cells.upper == pytest.approx(student_interval(flat, mean).upper)
    half = cells * [1, 0.5, 1]
    difference = student_difference(cells, half, lambda s: s[..., 1].sum(-1) / s[..., 0].sum(-1))
    assert difference.upper == pytest.approx(in_cells.upper / 2)


def test_the_effective_number_is_that_of_equal_documents() -> None:
    assert effective_documents(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_documents([4, 4, 0, 0]) == pytest.approx(2)
    sizes = np.random.default_rng(6).gamma(1, 1, 50)
    assert effective_documents(sizes) == pytest.approx(sizes.sum() ** 2 / (sizes**2).sum())
    assert effective_documents(1e9 * sizes) == pytest.approx(effective_documents(sizes))


def test_a_figure_that_one_document_alone_has_has_no_interval() -> None:
    sums = np.array([[10.0, 0.0], [10.0, 0.0], [10.0, 4.0]])
    inverse = lambda s: s[:, 0] / np.where(s[:, 1] > 0, s[:, 1], np.nan)  # noqa: E731
    assert set(student_figures(sums, {"share": mean, "inverse": inverse})) == {"share"}


@pytest.mark.parametrize(
    "sums", [np.ones(3), np.ones((1, 2)), np.zeros((3, 2)), np.array([[-1.0, 1], [2, 1]])]
)
def test_sums_without_events_are_refused(sums: Any) -> None:
    with pytest.raises(ValueError, match=r"^sums:"):
        student_interval(sums, mean)


@pytest.mark.long
@pytest.mark.parametrize("documents", [5, 9, 20])
def test_few_and_unequal_documents_are_covered(documents: int) -> None:
    """600 corpora; 95 % within 4 sigma, where BCa covers far less."""
    covered = plain = 0
    for seed in range(600):
        sums = unequal(np.random.default_rng(seed), documents)
        found = student_interval(sums, mean)
        covered += found.lower <= 3 <= found.upper
        found = bootstrap(sums, mean, resamples=200, seed=seed)
        plain += found.lower <= 3 <= found.upper
    noise = 4 * math.sqrt(600 * 0.05 * 0.95)
    assert covered > 0.95 * 600 - noise
    assert plain < 0.9 * 600
