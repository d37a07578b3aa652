"""Texts of a byte mixture: of models whose probabilities of every text are known."""

import math
from collections import Counter

import numpy as np
import pytest
from ensembles.toys import Toy, ToyMember

from calibtrain.ensembles.members import split_prompt
from calibtrain.ensembles.mixture_texts import Mixture, mixture_texts
from calibtrain.errors import UserError

TWO = (
    ToyMember("fine", Toy(1, [b"a", b"b"])),
    ToyMember("coarse", Toy(2, [b"a", b"b", b"ab", b"ba", b"bb"])),
)
LINEAR, GEOMETRIC = Mixture(), Mixture("geometric", "fixed")


def bits_of(member: ToyMember, data: bytes, prompt: bytes, *, ended: bool) -> float:
    whole = member.probability(prompt + data, ended=ended)
    return -math.log2(whole / member.probability(prompt, ended=False))


@pytest.mark.parametrize("prompt", [b"", b"ab"])
def test_information_is_that_of_all_tokenisations_and_of_their_mixture(prompt):
    for text in mixture_texts(TWO, [prompt], LINEAR, samples=8, max_bytes=5):
        ended = text.finish_reason == "end"
        assert len(text.data) <= 5
        assert ended or len(text.data) == 5
        each = [bits_of(member, text.data, prompt, ended=ended) for member in TWO]
        assert list(text.members.values()) == pytest.approx(each)
        mean = np.mean([2.0**-bits for bits in each])
        assert text.information_bits == pytest.approx(-math.log2(mean))
        assert text.information_bits <= min(each) + 1 + 1e-9


def test_texts_are_drawn_as_often_as_the_mixture_says():
    texts = mixture_texts(TWO, [""], LINEAR, samples=1000, max_bytes=2)
    counts = Counter((text.data, text.finish_reason == "end") for text in texts)
    for (data, ended), count in counts.items():
        p = np.mean([member.probability(data, ended=ended) for member in TWO])
        assert count / 1000 == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 1000))


@pytest.mark.parametrize("mixture", [LINEAR, GEOMETRIC])
def test_text_i_is_a_function_of_the_seed_and_i(mixture):
    many = mixture_texts(TWO, ["a"], mixture, samples=40, seed=5, max_bytes=6)
    few = mixture_texts(TWO, ["a"], mixture, samples=3, seed=5, max_bytes=6)
    assert [text.data for text in few] == [text.data for text in many[:3]]
    other = mixture_texts(TWO, ["a"], mixture, samples=40, seed=6, max_bytes=6)
    assert [text.data for text in other] != [text.data for text in many]


def test_the_greedy_text_takes_the_most_probable_byte_each_time():
    (text,) = mixture_texts(TWO, [""], LINEAR, greedy=True, max_bytes=4)
    so_far = b""
    for byte in text.data:
        on = {
            each: np.mean([m.probability(so_far + bytes([each]), ended=False) for m in TWO])
            for each in b"ab"
        }
        assert max(on, key=on.get) == byte
        so_far += bytes([byte])


def test_members_that_allow_nothing_in_common_disagree_and_a_linear_mixture_goes_on():
    one = ToyMember("one", Toy(1, [b"a"], never=[b""]))
    other = ToyMember("other", Toy(2, [b"b"], never=[b""]))
    (text,) = mixture_texts([one, other], [""], GEOMETRIC, max_bytes=4)
    assert (text.data, text.finish_reason) == (b"", "disagreement")
    (text,) = mixture_texts([one, other], [""], LINEAR, max_bytes=4)
    assert len(text.data) == 4
    assert sorted(text.members.values()) == [0.0, math.inf]
    assert text.to_dict()["members"][text.data == b"aaaa"]["information_bits"] is None


def test_what_is_shown_while_it_comes_never_splits_a_character():
    letters = sorted(set("あ😀é".encode()))
    pieces = ["あ".encode(), "😀".encode(), *(bytes([letter]) for letter in letters)]
    toy = Toy(3, pieces, never=[b""])
    prompt, shown = "é".encode()[:1], list[str]()
    (text,) = mixture_texts(
        [ToyMember("bytes", toy)],
        [prompt],
        max_bytes=60,
        on_piece=lambda _, piece: shown.append(piece),
    )
    assert "".join(shown) == text.text == (prompt + text.data).decode(errors="replace")
    assert len(shown) < len(text.data)


def test_a_prompt_is_cut_where_its_last_tokens_may_still_change():
    model = TWO[1].model
    ids, rest = split_prompt(model, b"ab" * 40)
    assert TWO[1].toy.spell(tuple(ids[1:])) + rest == b"ab" * 40
    assert 32 <= len(rest) <= 33
    ids, rest = split_prompt(model, b"ab")
    assert (ids.tolist(), rest) == ([0], b"ab")


def test_a_prompt_that_a_member_cannot_spell_is_named():
    with pytest.raises(UserError, match="fine has no tokens that spell"):
        mixture_texts(TWO, ["abc"], LINEAR, max_bytes=4)


def test_steps_say_what_each_member_proposed():
    (text,) = mixture_texts(TWO, [""], LINEAR, max_bytes=6, explain=True)
    assert b"".join(step.chosen for step in text.steps) == text.data
    for number, member in enumerate(TWO):
        told = math.prod(step.proposals[number].probability for step in text.steps)
        assert -math.log2(told) == pytest.approx(text.members[member.name])
        assert all(0 <= step.proposals[number].weight <= 1 for step in text.steps)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"average": "mean"}, "average"),
        ({"weighting": "no"}, "weighting"),
        ({"weights": (0,)}, "weights"),
    ],
)
def test_settings_that_are_not_allowed_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        Mixture(**wrong)
