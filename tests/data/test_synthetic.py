"""The Markov source: its entropy rate against brute force, and against the text it draws."""

import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.config import MarkovConfig
from calibtrain.data.corpora.synthetic import MarkovSource, markov_source, stationary_law
from calibtrain.errors import UserError


@st.composite
def configurations(draw):
    words = draw(st.integers(2, 40))
    return MarkovConfig(
        words=words,
        successors=draw(st.integers(1, words)),
        zipf=draw(st.floats(0, 10)),
        letters=draw(st.integers(2, 26)),
        mean_document_words=draw(st.floats(1.5, 50)),
        seed=draw(st.integers(0, 2**32 - 1)),
    )


def _every_document(source: MarkovSource, longest: int):
    for length in range(1, longest + 1):
        for path in itertools.product(source.words, repeat=length):
            yield " ".join(path)


@pytest.mark.parametrize("successors", [1, 2, 3])
def test_entropy_rate_equals_brute_force_over_all_documents(successors):
    config = MarkovConfig(words=3, successors=successors, mean_document_words=1.3, seed=5)
    source = markov_source(config)
    texts = list(_every_document(source, 9))
    logs = np.array([source.log2_probability(text) for text in texts])
    law = np.exp2(logs)
    sizes = np.array([len(text) for text in texts])
    missing = (1 - source.end_probability) ** 9  # documents of more than nine words
    assert law.sum() == pytest.approx(1 - missing, abs=1e-12)
    entropy = -(law[law > 0] * logs[law > 0]).sum()
    assert entropy == pytest.approx(source.entropy_bits_per_document, rel=2e-4)
    assert law @ sizes == pytest.approx(source.bytes_per_document, rel=2e-4)


def test_known_entropies():
    # A fair coin tossed until the document ends, one byte a toss and one a space between tosses:
    # 1 bit a toss and H_b(1/2)/(1/2) = 2 bits for the length; 2 tosses and 1 space on average.
    coin = MarkovSource(
        words=("a", "b"),
        successors=np.array([[0, 1], [1, 0]]),
        slot_probabilities=np.array([0.5, 0.5]),
        stationary=np.array([0.5, 0.5]),
        end_probability=0.5,
    )
    assert coin.entropy_bits_per_document == pytest.approx(4.0)
    assert coin.bytes_per_document == pytest.approx(3.0)
    assert coin.entropy_bits_per_byte == pytest.approx(4 / 3)
    assert coin.log2_probability("a b b") == pytest.approx(-6)
    # A wheel of n words that only turns: where it starts and where it ends is all there is to know.
    wheel = markov_source(MarkovConfig(words=16, successors=1, mean_document_words=2.0))
    assert wheel.entropy_bits_per_document == pytest.approx(math.log2(16) + 2.0)


@settings(deadline=None, max_examples=40)
@given(configurations())
def test_laws_of_every_source(config):
    source = markov_source(config)
    matrix = source.transition
    assert len(set(source.words)) == config.words
    assert all(word and " " not in word for word in source.words)
    assert matrix.sum(axis=1) == pytest.approx(1)
    assert ((matrix > 0).sum(axis=1) == config.successors).all()
    assert np.abs(source.stationary @ matrix - source.stationary).sum() < 1e-12
    assert source.stationary.sum() == pytest.approx(1)
    reached = np.linalg.matrix_power(np.eye(config.words) + (matrix > 0), config.words) > 0
    assert reached.all()  # irreducible: every word follows every other, sooner or later
    # No text of two words or less has more probability than there is.
    pairs = [f"{a} {b}" for a in source.words[:5] for b in source.words[:5]]
    total = sum(2 ** source.log2_probability(text) for text in (*source.words, *pairs))
    assert total <= 1 + 1e-9


@settings(deadline=None, max_examples=20)
@given(configurations())
def test_what_is_drawn_is_possible_and_words_come_back(config):
    source = markov_source(config)
    for text in source.sample_documents(20, config.seed):
        assert source.log2_probability(text) > -math.inf
        assert " ".join(text.split(" ")) == text == text.strip()


@pytest.mark.parametrize(
    "config",
    [
        MarkovConfig(),
        MarkovConfig(words=500, successors=20, zipf=1.3, mean_document_words=40.0, seed=3),
        MarkovConfig(words=2, successors=2, mean_document_words=1.5, seed=1),
    ],
)
def test_drawn_text_costs_the_exact_rate(config):
    source = markov_source(config)
    documents = list(source.sample_documents(round(3e5 / source.bytes_per_document), 11))
    bits = np.array([-source.log2_probability(text) for text in documents])
    sizes = np.array([len(text.encode()) for text in documents])
    rate = bits.sum() / sizes.sum()
    error = (bits - rate * sizes).std() * math.sqrt(len(sizes)) / sizes.sum()
    assert abs(rate - source.entropy_bits_per_byte) < 4.5 * error
    spread = sizes.std() / math.sqrt(len(sizes))
    assert abs(sizes.mean() - source.bytes_per_document) < 4.5 * spread


def test_words_of_documents_have_the_stationary_law():
    source = markov_source(MarkovConfig(words=8, successors=3, mean_document_words=5.0))
    counts = dict.fromkeys(source.words, 0)
    for text in source.sample_documents(40_000, 0):
        for word in text.split(" "):
            counts[word] += 1
    total = sum(counts.values())
    assert np.array([*counts.values()]) / total == pytest.approx(source.stationary, abs=0.01)


def test_frequent_words_are_few_and_short():
    source = markov_source(MarkovConfig(words=1000, successors=20))
    law = source.stationary
    assert law[:100].sum() > 0.5
    lengths = np.array([len(word) for word in source.words])
    assert lengths @ law < lengths.mean()


def test_impossible_texts():
    source = markov_source(MarkovConfig(words=4, successors=1))
    first, following = source.words[0], source.words[source.successors[0, 0]]
    assert source.log2_probability(f"{first} {following}") > -math.inf
    for text in ("", " ", f"{first} {first}", f"{first}  {following}", f"{first} ", "THE"):
        assert source.log2_probability(text) == -math.inf


def test_stationary_law_of_a_periodic_chain_and_of_one_that_mixes_slowly():
    assert stationary_law(np.array([[1], [2], [0]]), np.array([1.0])) == pytest.approx(1 / 3)
    # From 0 and 1 alike, 0 follows with probability 0.999: pi = (0.999, 0.001).
    skewed = stationary_law(np.array([[0, 1], [0, 1]]), np.array([0.999, 0.001]))
    assert skewed == pytest.approx([0.999, 0.001])
    # Two words that are left with probability 1e-9 and 1e-9: half the time each.
    stuck = stationary_law(np.array([[0, 1], [1, 0]]), np.array([1 - 1e-9, 1e-9]))
    assert stuck == pytest.approx(0.5)


def test_a_chain_whose_law_cannot_be_computed_is_refused():
    # A large wheel with ten words that are hardly ever left: a million steps to even them out.
    here = np.arange(3000)
    following = np.roll(here, -1)
    sticky = here < 10
    successors = np.stack([np.where(sticky, here, following), np.where(sticky, following, here)], 1)
    with pytest.raises(UserError, match="mixes too slowly"):
        stationary_law(successors, np.array([1 - 1e-6, 1e-6]))


def test_the_same_seed_draws_the_same_text_everywhere():
    source = markov_source(MarkovConfig(words=10, successors=3, mean_document_words=4.0, seed=7))
    text = "\n".join(source.sample_documents(200, 7))
    assert text == "\n".join(source.sample_documents(200, 7))
    assert text != "\n".join(source.sample_documents(200, 8))
    # Computed once; a change here changes every Markov corpus (then change its fingerprint too).
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "6bd0f5fcd86f83ec"


def test_too_large_a_source_is_refused():
    with pytest.raises(UserError, match=r"words \(100000\) times successors \(1000\)"):
        markov_source(MarkovConfig(words=100_000, successors=1000))
