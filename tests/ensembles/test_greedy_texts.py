"""The union of tokens and selective joins: of models whose distributions are known."""

import math

import numpy as np
import pytest
from ensembles.toys import Toy, ToyMember
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.ensembles.greedy_texts import greedy_texts
from calibtrain.ensembles.selective import Selective
from calibtrain.ensembles.text_reader import ROWS, TextReader
from calibtrain.ensembles.union import Union, Vocabulary, join

LETTERS = (b"a", b"b", b"c")
COARSE = (b"a", b"b", b"ab", b"ba", b"bb", b"c")


def greedy(toys: list[Toy], most: int) -> tuple[bytes, bool]:
    """The mean of models of one vocabulary of letters, the best token each time."""
    tokens: list[int] = []
    while len(tokens) < most:
        each = [toy.after((0, *tokens))[1:] for toy in toys]
        best = 1 + int(np.mean([own / own.sum() for own in each], axis=0).argmax())
        if best == 1:
            return toys[0].spell(tuple(tokens)), True
        tokens.append(best)
    return toys[0].spell(tuple(tokens)), False


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(1, 3))
def test_a_union_of_whole_vocabularies_is_their_mean(seed, count):
    toys = [Toy(seed + number, LETTERS) for number in range(count)]
    members = [ToyMember(str(number), toy) for number, toy in enumerate(toys)]
    (text,) = greedy_texts(members, [""], Union(), max_bytes=12)
    assert (text.data, text.finish_reason == "end") == greedy(toys, 12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.integers(1, 6))
def test_selective_joins_of_one_vocabulary_choose_what_the_mean_does(seed, draft):
    toys = [Toy(seed, LETTERS), Toy(seed + 1, LETTERS)]
    members = [ToyMember("first", toys[0]), ToyMember("other", toys[1])]
    (text,) = greedy_texts(members, [""], Selective(draft, consensus=1), max_bytes=12)
    assert (text.data, text.finish_reason == "end") == greedy(toys, 12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999))
def test_the_first_member_writes_alone_where_the_others_agree_or_none_is_asked(seed):
    toy, other = Toy(seed, LETTERS), Toy(seed + 1, LETTERS)
    alone = greedy([toy], 12)
    for members, consensus in (
        ([ToyMember("first", toy), ToyMember("copy", toy)], 1.0),
        ([ToyMember("first", toy), ToyMember("other", other)], 0.0),
    ):
        (text,) = greedy_texts(members, [""], Selective(consensus=consensus), max_bytes=12)
        assert (text.data, text.finish_reason == "end") == alone


def test_a_missing_token_borrows_the_logit_of_its_first_sub_token():
    fine, coarse = ToyMember("fine", Toy(1, LETTERS)), ToyMember("coarse", Toy(2, COARSE))
    vocabularies = [Vocabulary(fine), Vocabulary(coarse)]
    logs = [np.log(member.toy.after((0,))) for member in (fine, coarse)]
    joined = join(vocabularies, logs, np.array([0.5, 0.5]), 10)
    assert set(joined.strings) == {"a", "b", "c", "ab", "ba", "bb", chr(256)}
    borrowed = {"ab": "a", "ba": "b", "bb": "b"}
    place = joined.strings.index
    for longer, first in borrowed.items():
        assert joined.each[0, place(longer)] == joined.each[0, place(first)]
    own = np.exp(logs[1])
    assert joined.each[1, place("ab")] == pytest.approx(own[4] / own[1:].sum())
    np.testing.assert_allclose(joined.each.sum(axis=1), 1)
    np.testing.assert_allclose(joined.probability, joined.each.mean(axis=0))


def test_tokens_that_spell_one_string_count_together():
    member = ToyMember("twice", Toy(5, (b"a", b"b", b"a")))
    own = member.toy.after((0,))
    joined = join([Vocabulary(member)], [np.log(own)], np.ones(1), 10)
    assert sorted(joined.strings) == ["a", "b", chr(256)]
    wanted = {chr(256): own[1], "a": own[2] + own[4], "b": own[3]}
    for string, probability in zip(joined.strings, joined.probability, strict=True):
        assert probability == pytest.approx(wanted[string] / own[1:].sum())


def test_no_member_joins_inside_of_its_own_token():
    first, other = (
        ToyMember("first", Toy(3, LETTERS, sharpness=0.3)),
        ToyMember("other", Toy(4, COARSE)),
    )
    (text,) = greedy_texts([first, other], [""], Selective(consensus=1), max_bytes=20, explain=True)
    unsafe = [step for step in text.steps if step.proposals[1].stalled]
    for step in unsafe:
        assert (step.proposals[0].proposed, step.proposals[0].weight) == (step.chosen, 1.0)
    assert b"".join(step.chosen for step in text.steps) == text.data


@pytest.mark.parametrize("method", [Union(3), Selective(3)])
def test_information_of_members_is_that_of_all_tokenisations(method):
    members = [ToyMember("fine", Toy(1, LETTERS)), ToyMember("coarse", Toy(2, COARSE))]
    (text,) = greedy_texts(members, ["ab"], method, max_bytes=5)
    ended = text.finish_reason == "end"
    for member in members:
        whole = member.probability(b"ab" + text.data, ended=ended)
        bits = -math.log2(whole / member.probability(b"ab", ended=False))
        assert text.members[member.name] == pytest.approx(bits)


def test_a_reader_goes_back_by_some_tokens_without_beginning_anew():
    member = ToyMember("coarse", Toy(2, COARSE))
    toy = Toy(2, COARSE, ROWS)
    reader = TextReader(member.model, toy)
    for text in (b"a", b"ab", b"abb", b"ab", b"abab", b"ba", b"abababababab", b"abab"):
        ids = tuple(member.model.prompt_ids(text).tolist())
        with np.errstate(divide="ignore"):
            np.testing.assert_allclose(reader.after(text), np.log(toy.after(ids)))
    before = toy.passes
    reader.after(b"ababa")
    assert toy.passes - before <= 2


@pytest.mark.parametrize(
    ("kind", "wrong", "named"),
    [
        (Union, {"top": 0}, "top"),
        (Union, {"weights": (0.0,)}, "weights"),
        (Selective, {"draft": 0}, "draft"),
        (Selective, {"consensus": 2}, "consensus"),
    ],
)
def test_settings_that_are_not_allowed_are_named(kind, wrong, named):
    with pytest.raises(ValueError, match=named):
        kind(**wrong)
