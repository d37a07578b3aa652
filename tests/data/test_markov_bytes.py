"""The perfect model by bytes: its laws multiply up to the source's own probability of a text."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from test_synthetic import configurations

from calibtrain.config import MarkovConfig
from calibtrain.data.corpora.documents import END
from calibtrain.data.corpora.markov_bytes import MarkovBytes
from calibtrain.data.corpora.synthetic import MarkovSource, markov_source

# a word may be the beginning of another, and be spelled in more bytes than letters
PREFIXES = MarkovSource(
    words=("a", "ab", "abé", "b"),
    successors=np.array([[0, 1], [2, 3], [1, 0], [2, 1]]),
    slot_probabilities=np.array([0.7, 0.3]),
    stationary=np.full(4, 0.25),
    end_probability=0.2,
)


def test_laws_of_words_that_begin_others() -> None:
    model = MarkovBytes.of(PREFIXES)
    document, states, symbols = model.read(["a ab"])
    assert document.tolist() == [0] * 5
    assert symbols.tolist() == [*b"a ab", END]
    law = model.laws[states]
    assert law[0][[ord("a"), ord("b")]] == pytest.approx([0.75, 0.25])  # a document begins
    # "a" is over in a third of the cases, and then the document in a fifth
    assert law[1][[ord("b"), ord(" "), END]] == pytest.approx([2 / 3, 0.8 / 3, 0.2 / 3])
    assert law[2][ord("a")] == pytest.approx(1)  # after "a", only "a" and "ab"
    assert law[3][[ord("b"), ord(" "), END]] == pytest.approx([0.3, 0.7 * 0.8, 0.7 * 0.2])
    assert law[4][[ord(" "), END]] == pytest.approx([0.8, 0.2])


@settings(deadline=None, max_examples=25)
@given(configurations())
def test_laws_are_those_of_the_source(config) -> None:
    source = markov_source(config)
    model = MarkovBytes.of(source)
    np.testing.assert_allclose(model.laws.sum(1), 1, atol=1e-12)
    assert (model.laws >= 0).all()
    texts = list(source.sample_documents(5, config.seed))
    document, states, symbols = model.read(texts)
    logs = np.bincount(document, weights=np.log2(model.laws[states, symbols]))
    for text, found in zip(texts, logs, strict=True):
        assert found == pytest.approx(source.log2_probability(text), rel=1e-9, abs=1e-9)
    # all visits but those that end a document are bytes; and what they cost is the entropy
    assert model.visits.sum() == pytest.approx(source.bytes_per_document + 1)
    assert model.visits @ model.laws[:, END] == pytest.approx(1)
    nats = -np.log(model.laws, out=np.zeros_like(model.laws), where=model.laws > 0)
    bits = model.visits @ (model.laws * nats).sum(1) / math.log(2)
    assert bits == pytest.approx(source.entropy_bits_per_document, rel=1e-9, abs=1e-9)


def test_drawn_text_visits_states_as_often_as_expected_and_costs_the_entropy() -> None:
    source = markov_source(MarkovConfig(words=20, successors=4, mean_document_words=10.0))
    model = MarkovBytes.of(source)
    document, states, symbols = model.read(list(source.sample_documents(4000, 3)))
    visits = np.bincount(states, minlength=len(model.visits)) / 4000
    np.testing.assert_allclose(visits, model.visits, atol=0.08)
    bits = np.bincount(document, weights=-np.log2(model.laws[states, symbols]))
    sizes = np.bincount(document) - 1
    rate = bits.sum() / sizes.sum()
    error = (bits - rate * sizes).std() * math.sqrt(len(sizes)) / sizes.sum()
    assert abs(rate - source.entropy_bits_per_byte) < 4.5 * error


@pytest.mark.parametrize("text", ["", "a  ab", "b a", "z", "ab "])
def test_what_the_source_does_not_write_is_refused(text) -> None:
    with pytest.raises(ValueError, match=r"^texts:"):
        MarkovBytes.of(PREFIXES).read(["a ab", text])


def test_too_large_a_source_is_refused() -> None:
    source = MarkovSource(
        words=tuple(map(str, range(2000))),
        successors=np.zeros((2000, 101), np.int64),
        slot_probabilities=np.full(101, 1 / 101),
        stationary=np.full(2000, 1 / 2000),
        end_probability=0.5,
    )
    with pytest.raises(ValueError, match="202000 words x successors"):
        MarkovBytes.of(source)
