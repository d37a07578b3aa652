"""Agreement-based search: against beams, and against the enumeration of all joint spellings."""

import itertools
import math

import numpy as np
import pytest
from ensembles.toys import Toy
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.ensembles.agreement import Agreed, AgreementSearch, Reading, search
from calibtrain.ensembles.proposals import Spelling
from calibtrain.generation import beam

FINE = (b"a", b"b")
COARSE = (b"a", b"b", b"ab", b"ba", b"bb")
LONGEST = (b"a", b"b", b"aa", b"aba", b"abab")


def agreed(toys: list[Toy], width: int, most: int, **more) -> list[Agreed]:
    readings = []
    for toy in toys:
        toy.texts = [None] * width
        readings.append(Reading(toy, Spelling(toy.pieces, 1), np.array([0])))
    return search(readings, AgreementSearch(width, **more), most)


class Interpolated(Toy):
    """The geometric mean of models of one vocabulary, unnormalised."""

    def __init__(self, toys: list[Toy], weights: list[float], rows: int):
        super().__init__(0, toys[0].pieces[2:], rows)
        self.toys, self.weights = toys, weights

    def after(self, tokens):
        logs = [w * np.log(t.after(tokens)) for t, w in zip(self.toys, self.weights, strict=True)]
        return np.exp(np.sum(logs, axis=0))


def by_beam(states: Toy, width: int, most: int) -> list[beam.Hypothesis]:
    lengths = np.array([len(piece) for piece in states.pieces])
    lengths[1] = 0
    limits = beam.Limits(bytes=most)
    return beam.search(states, [np.array([0])], lengths, 1, beam.BeamSearch(width), limits)[0]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 6), st.sampled_from([FINE, LONGEST]))
def test_one_model_alone_is_its_own_beam(seed, width, most, pieces):
    found = agreed([Toy(seed, pieces)], width, most)
    beams = by_beam(Toy(seed, pieces, width), width, most)
    assert [each.paths[0].tokens for each in found] == [each.tokens for each in beams]
    assert [each.finish_reason for each in found] == [each.finish_reason for each in beams]
    assert [each.score for each in found] == pytest.approx([each.score for each in beams])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 6), st.sampled_from([(1.0, 1.0), (3.0, 1.0)]))
def test_models_of_one_byte_vocabulary_are_an_interpolated_beam(seed, width, weights):
    pieces = [bytes([value]) for value in range(97, 103)]
    toys = [Toy(seed, pieces), Toy(seed + 1, pieces)]
    found = agreed(toys, width, 5, weights=weights)
    shares = [weight / sum(weights) for weight in weights]
    beams = by_beam(Interpolated(toys, shares, width), width, 5)
    assert [each.paths[0].tokens for each in found] == [each.tokens for each in beams]
    assert [each.paths[1].tokens for each in found] == [each.tokens for each in beams]
    assert [each.score for each in found] == pytest.approx([each.score for each in beams])


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from([FINE, COARSE, LONGEST]), min_size=2, max_size=3),
    st.integers(0, 999),
)
def test_a_wide_search_finds_every_joint_spelling_of_every_text_that_ends(vocabularies, seed):
    most = 3 if len(vocabularies) == 3 else 4
    toys = [Toy(seed + number, pieces) for number, pieces in enumerate(vocabularies)]
    every = {}
    for size in range(most):  # a text of so many bytes is over without its end
        for letters in itertools.product(b"ab", repeat=size):
            spellings = [[(*each, 1) for each in toy.spellings(bytes(letters))] for toy in toys]
            for joint in itertools.product(*spellings):
                scores = [toy.log_probability(own) for toy, own in zip(toys, joint, strict=True)]
                every[joint] = sum(scores) / len(toys)
    found = agreed(toys, 1500, most)
    ended = [each for each in found if each.finish_reason == "end"]
    assert {tuple(path.tokens for path in each.paths): each.score for each in ended} == (
        pytest.approx(every)
    )
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.integers(1, 5), st.integers(1, 9))
def test_every_output_is_what_every_member_spells_and_nothing_follows_an_end(seed, width, most):
    toys = [Toy(seed, COARSE), Toy(seed + 1, LONGEST, end_piece=b"</s>"), Toy(seed + 2, FINE)]
    found = agreed(toys, width, most)
    assert found
    for each in found:
        assert len(each.data) <= most
        for toy, path in zip(toys, each.paths, strict=True):
            ended = each.finish_reason == "end"
            assert toy.spell(path.tokens) == each.data
            assert list(path.tokens).count(1) == ended
            assert not ended or path.tokens[-1] == 1
            assert path.log_probability == pytest.approx(toy.log_probability(path.tokens))
        mean = math.fsum(path.log_probability for path in each.paths) / 3
        assert each.score == pytest.approx(mean)


def test_a_stalled_member_makes_no_pass():
    fast, slow = Toy(3, [b"aaaa", b"b"], never=[b"b"]), Toy(4, [b"a", b"b"], never=[b"b"])
    (found,) = agreed([fast, slow], 1, 8)
    tokens = [len(path.tokens) for path in found.paths]
    assert fast.passes <= tokens[0]
    assert slow.passes <= tokens[1]
    assert fast.passes < slow.passes
    stalled = [step.moves[0] is None for step in found.history]
    assert sum(stalled) == len(found.history) - tokens[0] > 0


def test_members_that_share_no_text_but_the_empty_one_end_it_or_find_nothing():
    one, other = Toy(1, [b"a"]), Toy(2, [b"b"])
    (found,) = agreed([one, other], 3, 5)
    assert (found.data, found.finish_reason) == (b"", "end")
    never = [Toy(1, [b"a"], end_piece=b"$", never=[b"$"]), Toy(2, [b"b"])]
    assert agreed(never, 3, 5) == []


def test_bytes_inside_characters_are_joined_across_tokens():
    letters = [bytes([value]) for value in "あ😀".encode()]
    one = Toy(5, sorted(set(letters)), sharpness=3)
    other = Toy(6, ["あ".encode(), "😀".encode()])
    for each in agreed([one, other], 4, 12):
        each.data.decode()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"width": 0}, "width"), ({"visits": 0}, "visits"), ({"weights": (1.0, -1.0)}, "weights")],
)
def test_settings_that_are_not_allowed_are_named(wrong, named):
    with pytest.raises(ValueError, match=named):
        AgreementSearch(**wrong)
    with pytest.raises(ValueError, match="2 of them for 1 members"):
        AgreementSearch(weights=(1.0, 2.0)).of(1)


@pytest.mark.parametrize("visits", [1, 5, 40])
def test_an_early_stop_gives_texts_that_are_possible_and_no_better_than_the_best_of_all(visits):
    toys = [Toy(7, COARSE), Toy(8, LONGEST)]
    found = agreed(toys, 4, 6, visits=visits)
    assert found
    assert found[0].score <= agreed(toys, 600, 6)[0].score + 1e-12
    for each in found:
        assert [toy.spell(path.tokens) for toy, path in zip(toys, each.paths, strict=True)] == (
            [each.data, each.data]
        )
