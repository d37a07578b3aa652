"""Texts of agreement-based search, with what is said of them."""

import math

import pytest
from ensembles.toys import Toy, ToyMember

from calibtrain.ensembles.agreement import AgreementSearch
from calibtrain.ensembles.agreement_texts import agreement_texts
from calibtrain.errors import UserError

FAST = ToyMember("fast", Toy(3, ["あ".encode(), b"\xe3\x81", b"\x82\n", b"\n"], end_piece=b"</s>"))
SLOW = ToyMember("slow", Toy(4, [b"\xe3", b"\x81", b"\x82", b"\n"]))


def test_a_text_says_its_information_and_how_it_came_about():
    texts = agreement_texts([FAST, SLOW], ["あ"], AgreementSearch(8), max_bytes=12, explain=True)[0]
    scores = [text.information_bits for text in texts]
    assert scores == sorted(scores)
    for text in texts:
        assert text.information_bits == pytest.approx(sum(text.members.values()) / 2)
        assert b"".join(step.chosen for step in text.steps) == text.data
        assert text.steps[-1].ended == (text.finish_reason == "end")
        for number, member in enumerate((FAST, SLOW)):
            own = [step.proposals[number] for step in text.steps]
            told = [each for each in own if not each.stalled]
            assert b"".join(each.proposed for each in told) == text.data
            bits = -sum(math.log2(each.probability) for each in told)
            assert text.members[member.name] == pytest.approx(bits)
        rows = text.to_dict()["steps"]
        stalled = [row["members"][0] for row in rows if row["members"][0]["stalled"]]
        assert all(each["probability"] is None for each in stalled)
    assert any(step.proposals[0].stalled for text in texts for step in text.steps)


def test_a_prompt_may_end_inside_a_character():
    texts = agreement_texts([FAST, SLOW], [b"\xe3\x81"], max_bytes=4)[0]
    for text in texts:
        assert text.text == (b"\xe3\x81" + text.data).decode(errors="replace")


def test_members_that_can_agree_on_nothing_are_named():
    never = [
        ToyMember("one", Toy(1, [b"a"], never=[b""])),
        ToyMember("other", Toy(2, [b"b"], never=[b""])),
    ]
    with pytest.raises(UserError, match="is possible for all of one, other"):
        agreement_texts(never, [""], max_bytes=4)
