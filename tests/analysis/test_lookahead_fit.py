"""Algorithm 2 on chains whose every probability is known: left alone, and repaired."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.analysis.lookahead_fit import (
    Lookahead,
    cross_entropies,
    entropies,
    fit_lookahead,
    tilted,
)

STATES = 12
DRIFT = 0.4


def chain(seed: int = 0) -> np.ndarray:
    """A chain whose states differ in how certain the next one is."""
    rng = np.random.default_rng(seed)
    rows = [rng.dirichlet(np.full(STATES, 0.05 * 1.5**state)) for state in range(STATES)]
    return 0.98 * np.array(rows) + 0.02 / STATES


def row_entropies(law: np.ndarray) -> np.ndarray:
    return entropies(np.log(law))


def drifting(law: np.ndarray, drift: float) -> np.ndarray:
    """A model that prefers states after which it is uncertain: look-ahead by `drift` undoes it.

    It is the fixed point of Q proportional to P exp(drift H_Q).
    """
    q = law
    for _ in range(60):
        q = law * np.exp(drift * row_entropies(q))
        q /= q.sum(1, keepdims=True)
    return q


def walk(law: np.ndarray, documents: int, steps: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    edges = np.cumsum(law, axis=1)[:, :-1]
    state = rng.integers(STATES, size=documents)
    found = [state]
    for _ in range(steps):
        state = (rng.random(documents)[:, None] > edges[state]).sum(1)
        found.append(state)
    return np.stack(found, axis=1)


def seen_by(model: np.ndarray, text: np.ndarray) -> Lookahead:
    """What a model of the chain sees along a text: every state is a candidate."""
    before, after = text[:, :-1].ravel(), text[:, 1:].ravel()
    ahead = np.broadcast_to(row_entropies(model), (len(before), STATES))
    documents = np.repeat(np.arange(len(text)), text.shape[1] - 1)
    return Lookahead(np.log(model)[before], ahead, after, documents)


def test_a_calibrated_source_is_left_alone() -> None:
    law = chain()
    inside = 0
    for seed in range(20):
        found = fit_lookahead(seen_by(law, walk(law, 60, 50, seed)))
        inside += found.alpha.lower <= 0 <= found.alpha.upper
        assert found.alpha.upper - found.alpha.lower < 0.4
    assert inside >= 17  # a 95 % interval misses more than 3 of 20 once in 60 times


def test_a_planted_drift_is_repaired() -> None:
    law = chain()
    model = drifting(law, DRIFT)
    text = walk(law, 120, 100, 1)
    found = fit_lookahead(seen_by(model, text))
    assert found.alpha.lower < DRIFT < found.alpha.upper
    assert found.alpha.lower > 0
    assert found.gain.lower > 0
    assert found.gap_before.upper < 0
    # the tilted model is the source again, and so is its entropy rate
    repaired = np.exp(
        tilted(
            Lookahead(
                np.log(model),
                np.tile(row_entropies(model), (STATES, 1)),
                np.zeros(STATES, int),
                np.arange(STATES),
            ),
            DRIFT,
        )
    )
    assert repaired == pytest.approx(law, abs=1e-9)
    assert found.cross_entropy == pytest.approx(
        float(-np.log(law[text[:, :-1], text[:, 1:]]).mean()), abs=2e-3
    )


def stationary(law: np.ndarray) -> np.ndarray:
    return np.linalg.matrix_power(law, 4096)[0]


def test_generations_of_the_drifting_model_are_too_uncertain_and_of_the_repaired_not() -> None:
    law = chain()
    model = drifting(law, DRIFT)
    found = fit_lookahead(seen_by(model, walk(law, 120, 100, 1)))
    table = Lookahead(
        np.log(model),
        np.tile(row_entropies(model), (STATES, 1)),
        np.zeros(STATES, int),
        np.arange(STATES),
    )
    repaired = np.exp(tilted(table, found.alpha.estimate))

    def rate(of: np.ndarray) -> float:
        return float(stationary(of) @ row_entropies(of))

    def loss(of: np.ndarray) -> float:
        return float(-stationary(law) @ (law * np.log(of)).sum(1))

    assert rate(model) - loss(model) > 0.2  # amplified
    assert abs(rate(repaired) - loss(repaired)) < 0.05
    assert loss(repaired) < loss(model)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.floats(-0.5, 0.5))
def test_the_solution_is_stationary_and_never_worse(seed: int, drift: float) -> None:
    law = chain(seed % 7)
    found_in = seen_by(drifting(law, drift), walk(law, 10, 40, seed))
    found = fit_lookahead(found_in)
    assert abs(found.gap) < 1e-8
    assert found.cross_entropy <= found.cross_entropy_before + 1e-12
    for other in (-0.1, 0.1):
        beside = cross_entropies(found_in, found.alpha.estimate + other).mean()
        assert beside >= found.cross_entropy - 1e-12


def test_what_cannot_be_fitted_is_said() -> None:
    law = chain()
    text = walk(law, 4, 5, 0)
    same = seen_by(law, text)
    flat = Lookahead(
        same.log_probability, np.ones_like(same.next_entropy), same.true, same.documents
    )
    with pytest.raises(ValueError, match="does not differ"):
        fit_lookahead(flat)
    with pytest.raises(ValueError, match="fewer than two documents"):
        fit_lookahead(seen_by(law, text[:1]))


def test_positions_without_their_candidate_are_counted_and_not_scored() -> None:
    law = chain()
    whole = seen_by(law, walk(law, 20, 50, 3))
    missing = whole.true.copy()
    missing[::4] = -1
    found = fit_lookahead(
        Lookahead(whole.log_probability, whole.next_entropy, missing, whole.documents)
    )
    assert found.positions == 1000
    assert found.covered == 0.75
