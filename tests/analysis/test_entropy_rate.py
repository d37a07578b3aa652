"""Entropy rates of sources whose entropy is known, and what is said of texts that end early."""

import doctest
from collections.abc import Sequence

import numpy as np
import pytest

from calibtrain.analysis import continuations, entropy_rate
from calibtrain.analysis.continuations import Scored, choose_continuations
from calibtrain.analysis.entropy_rate import (
    ENTROPY,
    INFORMATION,
    by_position,
    calibration_figures,
    position_sums,
    reaching,
    rise,
)
from calibtrain.config import MarkovConfig
from calibtrain.data.corpora.documents import END, Document
from calibtrain.data.corpora.markov_bytes import MarkovBytes
from calibtrain.data.corpora.synthetic import MarkovSource, markov_source
from calibtrain.errors import UserError

REACH, WIDTH = 4_000, 100


@pytest.fixture(scope="module")
def source() -> MarkovSource:
    return markov_source(MarkovConfig(words=24, successors=4, mean_document_words=40.0))


def scored_exactly(source: MarkovSource, seed: int, count: int = 300) -> list[list[Scored]]:
    """Documents of a source, each byte and end with its exact probability and entropy."""
    perfect = MarkovBytes.of(source)
    log = np.log(np.maximum(perfect.laws, 1e-300))
    entropy = -np.sum(perfect.laws * log, axis=1)
    texts = list(source.sample_documents(count, seed))
    document, state, symbol = perfect.read(texts)
    found = []
    for number in range(count):
        own = document == number
        lengths = (symbol[own] != END).astype(int)
        found.append(
            [
                Scored(
                    np.cumsum(lengths) - lengths,
                    lengths,
                    -log[state[own], symbol[own]],
                    entropy[state[own]],
                    True,
                )
            ]
        )
    return found


def test_the_entropy_rate_of_a_true_model_is_the_known_one(source: MarkovSource) -> None:
    generated = position_sums(scored_exactly(source, 1), REACH, WIDTH).sum(1)
    given = position_sums(scored_exactly(source, 2), REACH, WIDTH).sum(1)
    for column in (ENTROPY, INFORMATION):
        found = entropy_rate.figure(generated, entropy_rate.bits_per_byte(column))
        assert found is not None
        lower, upper = found["lower"], found["upper"]
        assert lower is not None
        assert upper is not None
        assert lower < source.entropy_bits_per_byte < upper
        assert upper - lower < 0.1
    figures = calibration_figures(generated, given)
    for name, calibrated in (
        ("excess_nats_per_token", 0.0),
        ("excess_bits_per_byte", 0.0),
        ("amplification", 1.0),
        ("amplification_per_byte", 1.0),
    ):
        found = figures[name]
        assert found is not None
        assert found["lower"] < calibrated < found["upper"]  # type: ignore[operator]


def texts_of(lengths: Sequence[int], rates: Sequence[float], reach: int) -> list[list[Scored]]:
    """Texts of single bytes, each with an entropy of its own that stays the same."""
    return [
        [
            Scored(
                np.arange(length),
                np.ones(length, int),
                np.ones(length),
                np.full(length, rate),
                ended=length < reach,
            )
        ]
        for length, rate in zip(lengths, rates, strict=True)
    ]


def test_texts_that_end_early_do_not_make_the_others_rise() -> None:
    """Survivors of high entropy let the mean rise although no text does."""
    lengths, rates = [20] * 10 + [80] * 10, [1.0] * 10 + [3.0] * 10
    scored = texts_of(lengths, rates, 80)
    sums, common = position_sums(scored, 80, 10), reaching(scored, 80)
    rows = by_position(sums, common, 10, ENTROPY)
    assert [row["texts"] for row in rows] == [20, 20, *[10] * 6]
    means = [row["bits_per_byte"]["estimate"] * np.log(2) for row in rows]
    assert means == pytest.approx([2.0, 2.0, *[3.0] * 6])
    same = [row["common_bits_per_byte"]["estimate"] * np.log(2) for row in rows]
    assert same == pytest.approx([3.0] * 8)
    found = rise(sums, common, ENTROPY)
    assert found is not None
    assert found["estimate"] == pytest.approx(0.0)


def test_nothing_is_said_where_no_text_arrives() -> None:
    scored = texts_of([20, 25], [1.0, 2.0], 80)
    sums, common = position_sums(scored, 80, 10), reaching(scored, 80)
    rows = by_position(sums, common, 10, ENTROPY)
    assert rows[-1]["texts"] == 0
    assert rows[-1]["bits_per_byte"] is None
    assert rise(sums, common, ENTROPY) is None
    # one text is left in the third bin: an estimate, but nothing to draw anew
    assert rows[2]["texts"] == 1
    assert rows[2]["bits_per_byte"]["lower"] is None


def test_an_end_counts_where_it_is_predicted() -> None:
    ended = Scored(np.array([0, 4, 8]), np.array([4, 4, 0]), np.ones(3), np.ones(3), True)
    sums = position_sums([[ended]], reach=8, width=4)
    assert sums[0, :, entropy_rate.TOKENS].tolist() == [1, 2]


def test_documents_that_are_too_short_are_refused_in_words() -> None:
    with pytest.raises(UserError, match=r"--reference: 9 bytes .* in 1 of .* lower --reference"):
        choose_continuations(
            [Document("a", "x" * 10), Document("b", "")], count=2, prefix=1, reference=9
        )


def test_a_prefix_ends_with_a_whole_character() -> None:
    texts = [Document(name, "aß" + "x" * 9) for name in "ab"]
    found = choose_continuations(texts, count=2, prefix=2, reference=9)
    assert [each.prefix for each in found] == ["a", "a"]
    assert all(each.text.startswith("ß") for each in found)


def test_the_examples_are_right() -> None:
    for module in (continuations, entropy_rate):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed
