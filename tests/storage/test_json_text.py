"""JSON that is read: what is wrong with it is said in one line, and at once."""

import doctest
import json

import pytest

from calibtrain.storage import byte_pieces
from calibtrain.storage.byte_pieces import spelled_bytes, spelled_piece
from calibtrain.storage.json_text import parse_json


def test_a_key_that_comes_twice_in_a_large_vocabulary_is_found_at_once() -> None:
    pairs = [f'"piece{index}": {index}' for index in range(200_000)]
    assert len(parse_json("{" + ",".join(pairs) + "}")) == 200_000
    with pytest.raises(ValueError, match=r"^key 'piece199999' is given twice$"):
        parse_json("{" + ",".join([*pairs, pairs[-1]]) + "}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5_000, "a number of 5,000 digits"),
        (b'"\xff"', "not UTF-8 (byte 2)"),
        ("", "Expecting value, line 1, column 1"),
    ],
)
def test_what_is_not_json_is_one_line(text: str | bytes, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        parse_json(text)
    assert str(error.value) == said
    assert not isinstance(error.value, json.JSONDecodeError)


def test_pieces_that_are_not_characters_can_be_told_apart() -> None:
    found = [spelled_bytes("piece", bytes([byte])) for byte in range(256)]
    assert len({json.dumps(each) for each in found}) == 256
    assert len({spelled_piece(each) for each in found}) == 256
    assert doctest.testmod(byte_pieces).failed == 0
