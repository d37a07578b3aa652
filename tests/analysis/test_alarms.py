"""Sequential tests keep what they state: run lengths, false alarms, and laws of martingales."""

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibtrain.analysis.alarms import (
    BETS,
    CLIP,
    DOWN,
    UP,
    Cusum,
    EDetector,
    alarms_at,
    cusum_thresholds,
    false_alarms,
)


def both(values: Iterable[float]) -> list[tuple[float, float]]:
    """Returns blocks whose two values, for the upward and the downward test, are equal."""
    return [(float(value), float(value)) for value in values]


NUMBERS = st.lists(st.floats(-5, 5), min_size=1, max_size=40)


@given(NUMBERS)
def test_cusum_is_the_largest_sum_that_ends_now(values: list[float]) -> None:
    test = Cusum(math.inf, math.inf, allowance=0.5)
    for end in range(1, len(values) + 1):
        assert test.read(values[end - 1], values[end - 1]) == ""
        for side, sign in enumerate((1, -1)):
            sums = [sum(sign * v - 0.5 for v in values[begin:end]) for begin in range(end + 1)]
            assert test.statistics[side] == pytest.approx(max(sums), abs=1e-9)


@pytest.mark.parametrize(
    ("shift", "published"),
    [(0.0, 168.0), (1.0, 8.38)],
)
def test_cusum_has_the_published_run_lengths(shift: float, published: float) -> None:
    """Montgomery, Introduction to Statistical Quality Control: k = 1/2, h = 4, two-sided."""
    random = np.random.default_rng(0)
    values = random.normal(shift, 1.0, 120_000 if shift == 0 else 12_000)
    ends = [0, *(block + 1 for block, _ in alarms_at(Cusum(4, 4, 0.5), both(values)))]
    lengths = np.diff(ends)
    half = 3.3 * lengths.std() / math.sqrt(len(lengths))
    assert abs(lengths.mean() - published) < half


def test_cusum_thresholds_keep_the_rate_on_fresh_text() -> None:
    random = np.random.default_rng(1)
    rate = 1 / 400
    up, down = cusum_thresholds([both(random.normal(size=200)) for _ in range(200)], rate)
    fresh = [both(random.normal(size=200)) for _ in range(300)]
    for count in false_alarms(lambda: Cusum(up, down), fresh):
        expected = rate * 200 * 300
        # both the fit (100 alarms) and the count vary
        assert abs(count - expected) < 3.3 * expected * math.sqrt(1 / 100 + 1 / expected)


def test_too_little_text_for_a_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="too few to tell"):
        cusum_thresholds([both(np.zeros(999))], 0.001)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("side", [0, 1])
def test_the_expected_capital_is_known_to_rounding(restart: bool, side: int) -> None:
    """Over every path of a two-point law whose mean is the limit: 1 at any time, or the blocks."""
    limit = (0.6, -0.9)[side]
    chance = (limit + CLIP) / (2 * CLIP)
    expected = 0.0
    for path in itertools.product((CLIP, -CLIP), repeat=5):
        test = EDetector(-0.9, 0.6, 1e-12, restart=restart)
        for value in path:
            test.read(value, value)
        ups = path.count(CLIP)
        expected += chance**ups * (1 - chance) ** (5 - ups) * test.statistics[side]
    assert expected == pytest.approx(5.0 if restart else 1.0, rel=1e-12)


@given(NUMBERS)
def test_the_capital_is_the_mean_over_bets_of_products(values: list[float]) -> None:
    test = EDetector(-0.5, 0.25, 1e-300, restart=False)
    for value in values:
        test.read(value, value)
    x = (np.clip(values, -CLIP, CLIP) + CLIP) / (2 * CLIP)
    high, low = (0.25 + CLIP) / (2 * CLIP), (-0.5 + CLIP) / (2 * CLIP)
    up = np.mean([np.prod(1 - bet + bet * x / high) for bet in BETS])
    down = np.mean([np.prod(1 - bet + bet * (1 - x) / (1 - low)) for bet in BETS])
    assert test.statistics == pytest.approx((up, down), rel=1e-9)


def test_villes_bound_holds() -> None:
    """Without restart at most alpha of the texts ever give an alarm of a side."""
    random = np.random.default_rng(2)
    texts = random.choice((-CLIP, CLIP), (300, 150))
    alarmed = [
        {kind for _, kind in alarms_at(EDetector(0, 0, 0.1, restart=False), both(text))[:1]}
        for text in texts
    ]
    for kind in (UP, DOWN):
        share = np.mean([kind in kinds for kinds in alarmed])
        assert share <= 0.1 + 3.3 * math.sqrt(0.09 / 300)
    assert any(alarmed)


def test_the_e_detector_runs_at_least_as_long_as_stated() -> None:
    random = np.random.default_rng(3)
    values = random.normal(size=40_000)
    ups, downs = false_alarms(lambda: EDetector(0, 0, 1 / 200), [both(values)])
    for count in (ups, downs):
        assert 0 < count <= len(values) / 200


@pytest.mark.parametrize("make", [lambda: Cusum(8, 8), lambda: EDetector(-0.1, 0.1, 1 / 500)])
@pytest.mark.parametrize(("shift", "kind"), [(1.2, UP), (-1.2, DOWN)])
def test_a_shift_is_found_with_its_side_and_begin(make: object, shift: float, kind: str) -> None:
    random = np.random.default_rng(4)
    values = np.concatenate([random.normal(size=60), random.normal(shift, 1.0, size=60)])
    test = make()  # type: ignore[operator]
    found = (
        (end, test.read(float(value), float(value))) for end, value in enumerate(values, start=1)
    )
    end, given_kind = next((end, kind) for end, kind in found if kind)
    assert given_kind == kind
    assert end > 60
    assert abs(end - test.since() - 60) <= 10


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((0, 3.0, 0.1), "highest"), ((-4, 0, 0.1), "lowest"), ((0, 0, 1.0), "alpha")],
)
def test_limits_outside_their_range_are_refused(
    arguments: tuple[float, float, float], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        EDetector(*arguments)


@pytest.mark.peers
@pytest.mark.parametrize("bet", BETS)
def test_a_bet_is_that_of_expectation(bet: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its e-process of sequential e-values with a constant share (Ramdas and Wang, 7.21)."""
    reason = "the package expectation is not installed"
    tests = pytest.importorskip("expectation.modules.hypothesistesting", reason=reason)
    updater = pytest.importorskip("expectation.modules.eprocessupdater", reason=reason)
    import calibtrain.analysis.alarms as ours

    monkeypatch.setattr(ours, "BETS", (bet,))
    config = tests.EProcessConfig(betting_strategy="conservative", conservative_lambda=bet)
    process, update = tests.EProcess(config=config), updater.EProcessUpdater(config)
    test = EDetector(-0.2, 0.2, 1e-300, restart=False)
    high = (0.2 + CLIP) / (2 * CLIP)
    for value in np.random.default_rng(5).normal(0.5, 1.0, 100).tolist():
        test.read(value, value)
        x = (min(CLIP, max(-CLIP, value)) + CLIP) / (2 * CLIP)
        update.update(process, x / high)
        assert test.statistics[0] == pytest.approx(update.get_current_value(process), rel=1e-9)
