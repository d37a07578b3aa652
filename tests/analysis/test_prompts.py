"""Prompts cut from documents."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibtrain.analysis import prompts
from calibtrain.analysis.prompts import cut_prompts
from calibtrain.data.corpora.documents import Document


@given(st.lists(st.text(max_size=12), max_size=8), st.integers(1, 6), st.integers(1, 5))
def test_prompts_are_pieces_of_different_documents(
    texts: list[str], count: int, characters: int
) -> None:
    documents = {str(i): Document(str(i), text) for i, text in enumerate(texts)}
    found = cut_prompts(documents.values(), count=count, characters=characters)
    assert len({each.document for each in found}) == len(found)
    assert len(found) == min(count, sum(len(text) >= characters for text in texts))
    for each in found:
        assert len(each.text) == characters
        assert documents[each.document].text.endswith(each.text + each.continuation)


def test_every_position_is_drawn() -> None:
    document = Document("0", "abcdef")
    ends = [
        len(cut_prompts([document], count=1, characters=3, seed=seed)[0].continuation)
        for seed in range(60)
    ]
    assert set(ends) == {0, 1, 2, 3}


def test_the_examples_run_and_mistakes_are_refused() -> None:
    assert doctest.testmod(prompts).failed == 0
    with pytest.raises(ValueError, match=r"^characters: 0: must be at least 1"):
        cut_prompts([], count=1, characters=0)
