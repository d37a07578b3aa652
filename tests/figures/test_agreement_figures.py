"""Heat maps of agreement: what they show is the document, and a picture is well-formed XML."""

from xml.etree import ElementTree

import numpy as np
import pytest

from calibtrain import figures
from calibtrain.analysis.answers import extraction_of
from calibtrain.analysis.sample_consistency import Sample, measure_samples
from calibtrain.figures.agreement import agreement_figures, sample_label, sample_order, shown
from calibtrain.figures.agreement_svg import agreement_svg

TEXTS = ["Rome <b>", "Oslo & co", "", "Rome <b>", "ローマ\x00"]


def document(texts: list[str] = TEXTS) -> dict:
    samples = [Sample.given(text) for text in texts]
    found = measure_samples(samples, extraction_of("first-line"), ["jaccard"])
    return {**found.to_dict(), "notes": []}


def test_samples_stand_in_the_order_of_their_answers():
    assert sample_order(document()) == [0, 3, 1, 4, 2]
    assert sample_label(document(), 2) == "2: no answer"
    assert sample_label(document(), 0) == "0: rome <b>"


def test_the_matrix_is_drawn_as_it_is_in_that_order():
    found, order = document(), [0, 3, 1, 4, 2]
    (drawn,) = figures.sample_agreement(found).data
    np.testing.assert_allclose(np.array(drawn.z), np.array(found["matrix"])[np.ix_(order, order)])
    assert "&lt;b&gt;" in drawn.hovertext[0][1]


def test_tokens_are_drawn_along_the_central_sample():
    found = document()
    plot = figures.token_agreement(found, "dark")
    (drawn,) = plot.data
    assert list(plot.layout.xaxis.ticktext) == ["Rome", "&lt;b&gt;"]
    assert list(drawn.z[0]) == pytest.approx([0.25, 0.25])
    assert "var(--" not in plot.to_json()


def test_a_picture_is_xml_with_a_cell_for_each_pair_and_token():
    root = ElementTree.fromstring(agreement_svg(document()))
    cells = [each for each in root.iter() if each.get("class") == "cell"]
    assert len(cells) == 5 * 5 + 4 * 2  # the empty sample has no token
    texts = [each.text for each in root.iter() if each.tag.endswith("text")]
    assert "0: rome <b>" in texts
    assert "prefers-color-scheme:dark" in "".join(root.itertext())
    ElementTree.fromstring(agreement_svg(document(["a"])))


def test_one_sample_has_no_figure_and_empty_ones_no_tokens():
    assert agreement_figures(document(["a"])) == []
    assert [each.anchor for each in agreement_figures(document(["", ""]))] == ["samples"]


def test_what_cannot_be_printed_is_shown_by_a_sign():
    assert shown("a b\n\x00") == "a·b↵�"
