"""Samples of one prompt, measured together: ties, no answers at all, Japanese, one sample."""

import json

import numpy as np
import pytest

from calibtrain.analysis.answers import extraction_of
from calibtrain.analysis.sample_consistency import Sample, choose, measure_samples


def measured(texts, extract="first-line", similarities=("jaccard", "edit"), bits=None):
    samples = [Sample.given(text) for text in texts]
    if bits is not None:
        samples = [
            Sample(text, text, information_bits=own) for text, own in zip(texts, bits, strict=True)
        ]
    return measure_samples(samples, extraction_of(extract), similarities)


def test_where_no_sample_has_an_answer_nothing_is_chosen_and_all_are_counted():
    found = measured(["no", "none", ""], "number").to_dict()
    assert (found["answer"], found["chosen"], found["answers"]) == (None, None, [])
    assert found["without_answer"] == 3
    for name in ("agreement", "entropy", "entropy_by_samples", "fsd", "held_out"):
        assert found[name] is None
    assert np.shape(found["matrix"]) == (3, 3)  # texts can be alike without an answer


def test_of_answers_that_tie_that_of_the_most_probable_sample_is_chosen():
    found = measured(["a", "b", "b", "a", "c"], bits=[5.0, 9.0, 4.0, 8.0, 1.0])
    assert (found.answer, found.chosen, found.counts.fsd) == ("b", 2, 0.0)
    assert choose(["a", "b", "b", "a"], [None] * 4) == 0


def test_cocoa_is_information_times_dissimilarity_to_the_others():
    found = measured(["a b", "a b", "a c"], similarities=["jaccard"], bits=[2.0, 2.0, 6.0])
    own = found.similarity["jaccard"]
    assert own.cocoa == pytest.approx([2 * (1 - (1 + 1 / 3) / 2)] * 2 + [6 * (1 - 1 / 3)])
    assert own.degree == pytest.approx(1 - (5 + 4 / 3) / 9)
    assert measured(["a", "b"]).similarity["edit"].cocoa is None  # of unknown probability
    assert measured(["a"], bits=[1.0]).similarity["edit"].cocoa is None  # there is no other


def test_japanese_answers_are_compared_in_one_form_and_letter_by_letter():
    found = measured(["ガリラヤ。", "ｶﾞﾘﾗﾔ", "海"], similarities=["edit"])
    assert found.counts.answers == [("ガリラヤ", 2), ("海", 1)]
    assert found.tokens.columns == list("ガリラヤ。")
    assert json.loads(json.dumps(found.to_dict()))["aligned"]["columns"][0] == "ガ"


def test_one_sample_agrees_with_itself_and_has_no_held_out_half():
    found = measured(["Rome"]).to_dict()
    assert (found["agreement"], found["fsd"], found["held_out"]) == (1.0, 1.0, None)
    assert found["aligned"]["agreement"] == [[None]]


def test_bytes_that_are_no_character_are_shown_by_their_code():
    samples = [Sample("\ufffd", [b"\xe6", b"a"], 1.0, 2, "length")] * 2
    found = measure_samples(samples, extraction_of("whole"), ["edit"]).to_dict()
    assert found["aligned"]["columns"] == ["\\xe6", "a"]
    json.dumps(found)
