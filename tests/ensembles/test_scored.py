"""Scored documents: bits per byte of an ensemble and its members, from exact probabilities."""

import math

import numpy as np
import pytest
from ensembles.toys import Toy, ToyMember

from calibtrain.ensembles.mixture_texts import Mixture
from calibtrain.ensembles.scored import Texts, score_texts
from calibtrain.errors import UserError

MEMBERS = (
    ToyMember("fine", Toy(1, [b"a", b"b"])),
    ToyMember("coarse", Toy(2, [b"a", b"b", b"ab", b"ba", b"bb"])),
)
DATA = (b"ab", b"bba", b"a", b"abab", b"bb", b"baab")
TEXTS = Texts("texts", "0" * 16, tuple(map(str, range(len(DATA)))), DATA)


def test_bits_per_byte_are_those_of_all_tokenisations_and_the_posterior_mixture():
    found = score_texts(MEMBERS, TEXTS)
    size = sum(map(len, DATA))
    each = {
        member.name: [member.probability(data, ended=True) for data in DATA] for member in MEMBERS
    }
    for name, probabilities in each.items():
        bits = -sum(map(math.log2, probabilities)) / size
        assert found.members[name].results["bits_per_byte"] == pytest.approx(bits)
    mean = np.mean(list(each.values()), axis=0)
    bits = -np.log2(mean).sum() / size
    assert found.ensemble.results["bits_per_byte"] == pytest.approx(bits)
    assert found.ensemble.results["bytes"] == size
    for name, difference in found.differences.items():
        own = found.members[name].results["bits_per_byte"]
        assert difference["bits_per_byte"]["estimate"] == pytest.approx(bits - own)
        interval = difference["bits_per_byte"]
        assert interval["lower"] < bits - own < interval["upper"]
    assert found.beam_loss_bits == pytest.approx(0, abs=1e-9)


def test_copies_of_a_member_differ_from_it_by_nothing():
    (one,) = [each for each in MEMBERS if each.name == "fine"]
    copy = ToyMember("copy", one.toy)
    found = score_texts([one, copy], TEXTS, Mixture("geometric", "fixed"))
    for difference in found.differences.values():
        assert difference["bits_per_byte"]["estimate"] == pytest.approx(0, abs=1e-9)
        assert difference["ece"]["estimate"] == 0
    assert "byte.local" in found.ensemble.results["signatures"]["ece"]


def test_a_member_that_gives_a_byte_probability_0_has_no_figures_but_the_mixture_has():
    other = ToyMember("other", Toy(2, [b"b"]))
    found = score_texts([MEMBERS[0], other], TEXTS)
    assert found.members["other"] is None
    assert "other gives probability 0 to text of" in found.notes[0]
    assert math.isfinite(found.ensemble.results["bits_per_byte"])
    with pytest.raises(UserError, match="gives probability 0"):
        score_texts([MEMBERS[0], other], TEXTS, Mixture("geometric", "fixed"))


def test_a_text_without_bytes_is_refused():
    with pytest.raises(UserError, match="holds no text"):
        score_texts(MEMBERS, Texts("none", "", ("0",), (b"",)))
