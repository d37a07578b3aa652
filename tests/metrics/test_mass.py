"""Mass calibration equals its definition, in a batch, under jit and chunk by chunk of logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calibtrain.metrics import classwise_calibration_error, group_mass, mass_calibration
from calibtrain.readout import readout

RNG = np.random.default_rng(0)
TOKENS, VOCAB = 37, 11
PROBABILITIES = RNG.dirichlet(np.full(VOCAB, 0.3), TOKENS)
LABELS = RNG.integers(0, VOCAB, TOKENS)
GROUPS = np.array([0, 2, 1, 2, 2, 0, 1, 2, 2, 2, 1])
WEIGHTS = RNG.integers(0, 4, TOKENS).astype(float)


def test_shares_are_those_of_the_definition() -> None:
    found = mass_calibration(PROBABILITIES, LABELS, GROUPS, weights=WEIGHTS)
    for group in range(3):
        predicted = observed = 0.0
        for t in range(TOKENS):
            predicted += WEIGHTS[t] * sum(
                PROBABILITIES[t, v] for v in np.flatnonzero(group == GROUPS)
            )
            observed += WEIGHTS[t] * (GROUPS[LABELS[t]] == group)
        assert found.predicted[group] == pytest.approx(predicted / WEIGHTS.sum(), abs=1e-12)
        assert found.observed[group] == pytest.approx(observed / WEIGHTS.sum(), abs=1e-12)
    assert found.gap.sum() == pytest.approx(0, abs=1e-12)
    repeated = np.repeat(np.arange(TOKENS), WEIGHTS.astype(int))
    again = mass_calibration(PROBABILITIES[repeated], LABELS[repeated], GROUPS)
    np.testing.assert_allclose(again, found, atol=1e-12)


def test_with_a_group_for_each_entry_it_is_classwise_ece_of_one_bin() -> None:
    gap = mass_calibration(PROBABILITIES, LABELS, np.arange(VOCAB)).gap
    classwise = classwise_calibration_error(PROBABILITIES, LABELS, bins=1, per="token")
    assert np.abs(gap).sum() == pytest.approx(float(classwise), abs=1e-9)


def test_it_is_the_same_inside_jit() -> None:
    found = jax.jit(lambda p, y, w: mass_calibration(p, y, GROUPS, weights=w))(
        PROBABILITIES, LABELS, WEIGHTS
    )
    np.testing.assert_allclose(
        found, mass_calibration(PROBABILITIES, LABELS, GROUPS, weights=WEIGHTS), atol=1e-6
    )


def test_the_functional_gives_each_tokens_masses_in_the_pass_of_readout() -> None:
    hidden, columns = RNG.normal(size=(TOKENS, 4)), RNG.normal(size=(4, VOCAB + 2))
    stats = readout(
        jnp.asarray(hidden, jnp.float32),
        jnp.asarray(columns, jnp.float32),
        jnp.asarray(LABELS),
        temperature=1.7,
        vocab_size=VOCAB,  # two columns only pad it
        chunk=5,
        fields=("predicted",),
        functionals={"mass": group_mass(GROUPS)},
    )
    logits = (hidden @ columns)[:, :VOCAB] / 1.7
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(stats.extra["mass"], p @ np.eye(3)[GROUPS], atol=1e-6)
    np.testing.assert_array_equal(stats.predicted, logits.argmax(1))


@pytest.mark.parametrize(
    ("groups", "said"),
    [(GROUPS[:5], "groups: shape"), (GROUPS - 1, "groups:"), (GROUPS + 0.5, "groups:")],
)
def test_groups_that_do_not_fit_are_refused(groups: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mass_calibration(PROBABILITIES, LABELS, groups)
