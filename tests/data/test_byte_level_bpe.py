"""Byte-level BPE: the tokens of the tokenizers package, and every text back byte for byte."""

import functools
import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent.parent / "interchange"))
from foreign import SPECIALS, tokenizer_json

from calibtrain.config import Config, with_value
from calibtrain.data.tokenizers.byte_level_bpe import ByteLevelBPE, byte_alphabet
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_choice import obtain_tokenizer
from calibtrain.data.tokenizers.tokenizer_facts import describe
from calibtrain.errors import UserError
from calibtrain.interchange.foreign_tokenizer import ForeignTokenizer, Marks

pytest.importorskip("tokenizers")


class Text(NamedTuple):
    """A document."""

    id: str
    text: str


@functools.cache
def content() -> bytes:
    return tokenizer_json()


@functools.cache
def ours(start: str | None = "<|im_start|>") -> Tokenizer:
    return ForeignTokenizer.byte_level(content(), 390, Marks(start, 2), "x").tokenizer


def test_the_alphabet_is_that_of_the_tokenizers_package() -> None:
    from tokenizers import pre_tokenizers

    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    assert set(byte_alphabet()) == set(level.alphabet())
    for text in ("\n", " ", "é", "\x7f", "~", "\xad", "你"):
        (spelled, _), *_ = level.pre_tokenize_str(text)
        assert spelled == "".join(byte_alphabet()[value] for value in text.encode())


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
@settings(max_examples=200, deadline=None)
def test_every_text_comes_back_with_the_packages_tokens(text: str) -> None:
    from tokenizers import Tokenizer as Theirs

    ids = ours().encode(text)
    assert ours().decode(ids) == text.encode()
    if not any(special in text for special in SPECIALS):
        theirs = Theirs.from_str(content().decode())
        assert theirs.encode(text, add_special_tokens=False).ids == ids.tolist()


@pytest.mark.parametrize("special", SPECIALS)
def test_a_special_token_in_a_text_is_text(special: str) -> None:
    text = f"before{special}{special} after{special[:-1]}"
    ids = ours().encode(text)
    assert ours().decode(ids) == text.encode()
    assert not {0, 1, 2} & {*ids.tolist()}


def test_a_word_that_is_a_piece_is_no_special_token() -> None:
    """Where whole words are looked up before merging, a special token must not be found so."""
    tree = json.loads(content())
    tree["model"]["ignore_merges"] = True
    tree["pre_tokenizer"]["use_regex"] = False
    tokenizer = ByteLevelBPE(json.dumps(tree).encode())
    (ids,) = tokenizer.encode(["<|im_end|>"])
    assert 2 not in ids
    assert b"".join(tokenizer.pieces[index] for index in ids) == b"<|im_end|>"


def test_pieces_are_the_bytes_that_the_package_decodes() -> None:
    from tokenizers import Tokenizer as Theirs

    theirs = Theirs.from_str(content().decode())
    pieces = ours().piece_bytes
    for index in range(3, theirs.get_vocab_size()):
        assert theirs.decode([index]) == pieces[index].decode(errors="replace")
    assert not any(pieces[:3])
    assert [pieces[index] for index in ours().byte_ids] == [bytes([v]) for v in range(256)]


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    ours().save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert (again.hash, again.vocab_size) == (ours().hash, 390)
    assert again.encode("a text").tolist() == ours().encode("a text").tolist()
    assert describe(again)["kind"] == "byte_level_bpe"
    assert ours(None).hash != ours().hash  # another token starts its documents
    (tmp_path / "tokenizer.json").write_bytes(content()[:-9])
    with pytest.raises(UserError, match=r"tokenizer\.json: is damaged"):
        Tokenizer.load(tmp_path)


def test_composing_is_left_out_and_said() -> None:
    found = ForeignTokenizer.byte_level(
        tokenizer_json(normalizer={"type": "NFC"}), 384, Marks(1, 2), "x"
    )
    assert "NFC" in found.notes[0]
    text = "e\u0301"
    assert found.tokenizer.decode(found.tokenizer.encode(text)) == text.encode()


def test_a_model_without_a_start_begins_documents_with_the_end() -> None:
    tokenizer = ForeignTokenizer.byte_level(content(), 384, Marks(None, 0), "x").tokenizer
    assert (tokenizer.bos_id, tokenizer.eos_id) == (0, 0)


def test_a_text_with_a_byte_that_has_no_piece_is_refused() -> None:
    """As SmolLM2's vocabulary, which lacks some controls; the package drops them silently."""
    tree = json.loads(content())
    letter = byte_alphabet()[0x04]
    index = tree["model"]["vocab"].pop(letter)
    tokenizer = ByteLevelBPE(json.dumps(tree).encode())
    assert tokenizer.absent == b"\x04"
    assert tokenizer.byte_ids[4] == -1
    assert not tokenizer.pieces[index]
    with pytest.raises(UserError, match="byte 3 of a text is 0x04"):
        tokenizer.encode(["fine", "éa\x04b"])
    found = ForeignTokenizer.byte_level(json.dumps(tree).encode(), 384, Marks(1, 2), "x")
    assert "(04)" in found.notes[0]
    documents = [Text("one", "fine"), Text("two", "a\x04")]
    with pytest.raises(UserError, match="document 'two': byte 1"):
        found.tokenizer.check_lossless(documents)


def test_a_lone_surrogate_is_named() -> None:
    with pytest.raises(UserError, match="lone surrogate"):
        ours().encode("a\udc00b")


def test_it_is_not_trained(tmp_path: Path) -> None:
    config = with_value(Config(), {"tokenizer.kind": "byte_level_bpe"}).tokenizer
    with pytest.raises(UserError, match=r"tokenizer\.kind.*tokenizer\.path"):
        obtain_tokenizer(config, None, tmp_path)  # type: ignore[arg-type]
