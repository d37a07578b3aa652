"""A sample of a split: exactly so many bytes, of many documents, the same for every vocabulary."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibtrain.data.batches.sample import LEAST, choose_stretches, facts, scored_bytes, whole


def split(sizes: list[int]) -> SimpleNamespace:
    names = tuple(str(number) for number in range(len(sizes)))
    return SimpleNamespace(document_bytes=np.array(sizes, np.int64), document_ids=names)


@given(st.lists(st.integers(0, 700), min_size=1, max_size=60), st.integers(1, 9_000))
def test_a_sample_holds_exactly_so_many_bytes_of_as_many_documents_as_fit(
    sizes: list[int], limit: int
) -> None:
    documents = split(sizes)
    chosen = choose_stretches(documents, limit)
    scored = scored_bytes(documents, chosen)
    assert scored.sum() == min(limit, sum(sizes))
    read = np.zeros((len(sizes), 701), int)
    for document, start, stop in chosen:
        assert 0 <= start <= stop <= sizes[document]
        read[document, start:stop] += 1
    assert read.max(initial=0) <= 1  # no byte is scored twice
    told = facts(documents, chosen, "corpus")
    assert told["cut"] == any(0 < mine < size for mine, size in zip(scored, sizes, strict=True))
    if limit < sum(sizes):
        there = sum(size > 0 for size in sizes)
        assert told["documents"] >= min(there, limit // LEAST)


def test_every_byte_is_as_likely_as_another_to_be_in_a_sample() -> None:
    """First and last bytes are not rarer, where all documents have one length."""
    documents = split([200] * 3_000)
    read = np.zeros(200)
    for _, start, stop in choose_stretches(documents, 150_000):
        read[start:stop] += 1
    assert read.sum() == 150_000
    np.testing.assert_allclose(read / 3_000, 0.25, atol=0.005)


def test_a_hash_is_that_of_the_bytes_that_were_scored() -> None:
    documents = split([300, 200, 100])
    hashes = {
        facts(documents, stretches, corpus)["text_hash"]
        for corpus in ("one", "other")
        for stretches in (whole(documents), whole(documents, np.array([0])))
    }
    assert len(hashes) == 4
    assert facts(documents, choose_stretches(documents, 600), "one") == facts(
        documents, whole(documents), "one"
    )


def test_a_document_is_named_where_it_is_not_whole() -> None:
    told = facts(split([300, 200, 100]), choose_stretches(split([300, 200, 100]), 192), "one")
    assert told == pytest.approx(
        {
            "documents": 3,
            "of_documents": 3,
            "bytes": 192,
            "of_bytes": 600,
            "cut": True,
            "text_hash": told["text_hash"],
        }
    )
