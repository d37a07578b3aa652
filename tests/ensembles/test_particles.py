"""Sequential Monte Carlo over bytes: against the product of toy models over all texts."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from ensembles.toys import LETTERS, Bigram, Toy, ToyMember

from calibtrain.data.corpora.documents import END
from calibtrain.ensembles import particles
from calibtrain.ensembles.byte_mixture import ByteMixture
from calibtrain.ensembles.members import begin
from calibtrain.ensembles.mixture_texts import Mixture
from calibtrain.ensembles.particles import Population, grown, particle_texts
from calibtrain.errors import UserError

SEEDS, SHARES, MOST = (92, 93), (2 / 3, 1 / 3), 4
PRODUCT = Mixture("geometric", "fixed", (2.0, 1.0))
MEMBERS = (
    ToyMember("fine", Toy(11, [b"a", b"b"], sharpness=3)),
    ToyMember("coarse", Toy(12, [b"a", b"b", b"ab", b"ba"], sharpness=3)),
)


def exact() -> dict[tuple[bytes, bool], float]:
    """The product over texts, of which those at the limit count as beginnings; unnormalised."""
    found = {}
    for size in range(MOST + 1):
        for text in itertools.product(LETTERS[:2], repeat=size):
            ended = size < MOST
            each = [Bigram(seed, spread=0.4).of((*text, END) if ended else text) for seed in SEEDS]
            found[bytes(text), ended] = math.prod(p**w for p, w in zip(each, SHARES, strict=True))
    return found


def population(count: int, seed: int) -> Population:
    members = [Bigram(each, count, spread=0.4) for each in SEEDS]
    mixture = ByteMixture(members, weights=(2, 1), average="geometric", weighting="fixed")
    return grown(mixture, count, MOST, np.random.default_rng(seed))


def distance(count: int, draws: int) -> float:
    """Total variation between texts, as often as their weights say, and the product."""
    product, counts = exact(), Counter()
    for seed in range(draws):
        found = population(count, seed)
        for key, share in zip(zip(found.data, found.ended, strict=True), found.shares, strict=True):
            counts[key] += share
    normalizer = sum(product.values())
    return sum(abs(counts[key] / draws - p / normalizer) for key, p in product.items()) / 2


def test_texts_come_from_the_product_over_texts_and_not_from_the_local_one():
    assert distance(60, 30) < 0.06
    assert distance(1, 400) > 0.25


@pytest.mark.parametrize("count", [1, 4, 16])
def test_the_normaliser_is_estimated_without_bias(count):
    found = [population(count, seed) for seed in range(200)]
    estimates = [math.exp(each.log_normalizer) for each in found]
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert np.mean(estimates) == pytest.approx(sum(exact().values()), abs=4 * error)
    assert any(each.resampled for each in found) == (count > 1)


def test_what_a_particle_says_of_its_text_is_true_after_resampling(monkeypatch):
    monkeypatch.setattr(particles, "RESAMPLED", 1.0)
    readers, resampled = [member.next_byte(8, None, 1) for member in MEMBERS], 0
    for seed in range(6):
        begin(MEMBERS, readers, [b"a"])
        found = grown(PRODUCT.of(readers), 8, 5, np.random.default_rng(seed))
        resampled += found.resampled
        for place, (text, ended) in enumerate(zip(found.data, found.ended, strict=True)):
            whole = [member.probability(b"a" + text, ended=ended) for member in MEMBERS]
            before = [member.probability(b"a", ended=False) for member in MEMBERS]
            each = np.log(np.divide(whole, before))
            np.testing.assert_allclose(found.of_members[:, place], each)
            assert found.log_product[place] == pytest.approx(each @ SHARES)
    assert resampled


def test_text_i_is_a_function_of_the_seed_and_i():
    many = particle_texts(MEMBERS, ["a"], PRODUCT, 4, samples=4, seed=3, max_bytes=3)
    few = particle_texts(MEMBERS, ["a"], PRODUCT, 4, samples=2, seed=3, max_bytes=3)
    assert [text.data for text in few] == [text.data for text in many[:2]]


def test_members_that_allow_nothing_in_common_disagree():
    one = ToyMember("one", Toy(1, [b"a"], never=[b""]))
    other = ToyMember("other", Toy(2, [b"b"], never=[b""]))
    (text,) = particle_texts([one, other], [""], Mixture("geometric", "fixed"), 4, max_bytes=4)
    assert (text.data, text.finish_reason) == (b"", "disagreement")


def test_a_linear_average_needs_no_particles():
    with pytest.raises(UserError, match="geometric average"):
        particle_texts(MEMBERS, [""], Mixture(), 4)
