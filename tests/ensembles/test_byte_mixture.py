"""The byte mixture: of models whose probabilities of every text are known."""

import itertools
import math

import numpy as np
import pytest
from ensembles.toys import LETTERS, Bigram
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.data.corpora.documents import END
from calibtrain.ensembles.byte_mixture import ByteMixture


def through(mixture: ByteMixture, text: tuple[int, ...]) -> float:
    """The probability that a mixture gives a text."""
    found = 1.0
    for symbol in text:
        found *= mixture.predict()[0, symbol]
        mixture.read(np.array([symbol]))
    return found


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
    st.lists(st.sampled_from((97, 98)), min_size=1, max_size=12),
)
def test_posterior_weights_make_the_mixture_of_texts_which_loses_at_most_log2_n_bits(seeds, text):
    text = (*text, END)
    members = [Bigram(seed) for seed in seeds]
    found = through(ByteMixture(members), text)
    alone = [Bigram(seed).of(text) for seed in seeds]
    assert found == pytest.approx(np.mean(alone))
    assert -math.log2(found) <= -math.log2(max(alone)) + math.log2(len(seeds)) + 1e-9


@pytest.mark.parametrize("average", ["linear", "geometric"])
@pytest.mark.parametrize("weighting", ["fixed", "posterior"])
def test_averages_are_distributions_over_texts_of_a_length(average, weighting):
    total = sum(
        through(ByteMixture([Bigram(1), Bigram(2)], average=average, weighting=weighting), text)
        for text in itertools.product(LETTERS[:2], repeat=4)
    )
    ended = sum(
        through(ByteMixture([Bigram(1), Bigram(2)], average=average, weighting=weighting), text)
        for n in range(4)
        for letters in itertools.product(LETTERS[:2], repeat=n)
        for text in [(*letters, END)]
    )
    assert total + ended == pytest.approx(1)


def test_a_geometric_mean_is_what_is_normalised_at_each_byte():
    one, other = Bigram(3), Bigram(4)
    found = ByteMixture(
        [one, other], weights=[3, 1], average="geometric", weighting="fixed"
    ).predict()
    product = one.table[0] ** 0.75 * other.table[0] ** 0.25
    np.testing.assert_allclose(found[0, LETTERS], product / product.sum())


@pytest.mark.parametrize("average", ["linear", "geometric"])
def test_copies_of_a_model_are_that_model_and_so_is_one(average):
    for seeds in ([7], [7, 7, 7]):
        members = [Bigram(seed) for seed in seeds]
        text = (97, 98, 98, END)
        assert through(ByteMixture(members, average=average), text) == pytest.approx(
            Bigram(7).of(text)
        )


def test_a_member_that_gives_nothing_to_the_text_has_no_weight_afterwards():
    mixture = ByteMixture([Bigram(1, never=(0, 1)), Bigram(2)])
    mixture.predict()
    mixture.read(np.array([98]))
    np.testing.assert_allclose(mixture.weights[:, 0], [0, 1])
    assert mixture.predict().sum() == pytest.approx(1)


def test_weights_follow_the_lane_that_a_text_goes_on_from():
    mixture = ByteMixture([Bigram(1, 2), Bigram(2, 2)])
    mixture.predict()
    mixture.read(np.array([97, 98]))
    first = mixture.weights[:, 0].copy()
    mixture.predict()
    mixture.read(np.array([-2, -2]), np.array([0, 0]))
    np.testing.assert_allclose(mixture.weights, np.stack([first, first], axis=1))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"weights": [1]}, "weights"),
        ({"weights": [1, 0]}, "weights"),
        ({"average": "mean"}, "mean"),
        ({"weighting": "none"}, "weighting"),
    ],
)
def test_settings_that_are_not_allowed_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        ByteMixture([Bigram(1), Bigram(2)], **wrong)
    with pytest.raises(ValueError, match="lanes"):
        ByteMixture([Bigram(1), Bigram(2, lanes=3)])
