"""Added tokens that are text are read as the tokenizers package reads them; marks never are."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import tiny
from foreign import SPECIALS, VOCAB, corpus, random_model, texts, tokenizer_json, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st
from test_gguf import write
from test_round_trip import loaded

from calibtrain.data.tokenizers.added_tokens import ADDED_TEXT, AddedToken, require_distinct
from calibtrain.data.tokenizers.gguf_tokenizer import tokenizer_json as from_metadata
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
from calibtrain.errors import UserError
from calibtrain.evaluation import evaluate_run_on_text
from calibtrain.generation.byte_trie import ByteTrie
from calibtrain.interchange import export_run, import_model
from calibtrain.interchange.foreign_tokenizer import ForeignTokenizer, Marks
from calibtrain.interchange.pretrained import open_pretrained
from calibtrain.interchange.tokenizer_files import tokenizer_files

pytest.importorskip("tokenizers")

OWN = json.loads(tokenizer_json())
FIRST = len(OWN["model"]["vocab"])
FREE = [
    "heaven and",
    "  ",
    "    ",
    "é\u0301",
    "<think>",
    "without form",
    "ab",
    "bcd",
    "ear",
    "\n\n",
]
PARTS = [*FREE, *SPECIALS, " ", "a", "b", "c", "d", "th", "the", "earth", "ears", "_", "\n", "你"]


def added(index: int, content: str, **flags: bool) -> dict[str, Any]:
    own = dict.fromkeys(("special", "lstrip", "rstrip", "single_word", "normalized"), False)
    return {"id": index, "content": content, **own, **flags}


def with_added(*tokens: dict[str, Any], **parts: Any) -> bytes:
    return tokenizer_json(added_tokens=[*OWN["added_tokens"], *tokens], **parts)


def plain(contents: list[str], **flags: bool) -> bytes:
    return with_added(*(added(FIRST + i, text, **flags) for i, text in enumerate(contents)))


def read(content: bytes, vocab: int = VOCAB) -> Tokenizer:
    return ForeignTokenizer.byte_level(content, vocab, Marks(1, 2), "x").tokenizer


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Tokenizers with added tokens of every kind that can be read, some in the vocabulary too."""
    contents = draw(st.lists(st.sampled_from([*FREE, "th", "<"]), unique=True, max_size=6))
    tokens, free = [], FIRST
    for content in contents:
        index = OWN["model"]["vocab"].get(content, free)
        free += index == free
        flags = {name: draw(st.booleans()) for name in ("special", "single_word", "normalized")}
        if index < FIRST:  # a piece that is a mark leaves its merges without a result
            flags["special"] = False
        tokens.append(added(index, content, **flags))
    return with_added(*tokens)


@settings(max_examples=60, deadline=None)
@given(content=files(), parts=st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=12))
def test_texts_are_cut_as_the_tokenizers_package_cuts_them(content: bytes, parts: Any) -> None:
    from tokenizers import Tokenizer as Theirs

    theirs = Theirs.from_str(content.decode())
    theirs.encode_special_tokens = True  # marks in a text are letters
    own, text = read(content), "".join(parts)
    ids = own.encode(text)
    assert own.decode(ids) == text.encode()
    assert ids.tolist() == theirs.encode(text, add_special_tokens=False).ids


def test_the_longest_at_the_leftmost_place() -> None:
    own = read(plain(["ab", "bcd", "  ", "    "]))
    ids = own.encode("abcd" + " " * 7 + "x").tolist()
    assert [own.piece_bytes[index] for index in ids] == [
        *(b"ab", b"c", b"d"),
        *(b"    ", b"  ", b" ", b"x"),
    ]
    assert own.byte_lengths[ids].sum() == len("abcd" + " " * 7 + "x")
    spelled = ByteTrie.of(own.piece_bytes, own.eos_id).order
    assert {FIRST, FIRST + 3} <= {*spelled.tolist()}  # they are events of the next byte


def test_a_token_is_not_found_inside_a_mark() -> None:
    """A text that spells a mark gets the pieces of its letters, as if there were no tokens."""
    own = read(with_added(added(FIRST, "<|look|>", special=True), added(FIRST + 1, "look")))
    ids = own.encode("look <|look|>")
    pieces = [own.piece_bytes[index] for index in ids]
    assert pieces[0] == b"look"
    assert b"look" not in pieces[1:]
    assert own.decode(ids) == b"look <|look|>"
    assert ids[1:].tolist() == read(tokenizer_json()).encode(" <|look|>").tolist()


@pytest.mark.long
def test_a_run_reads_them_from_import_to_export(tmp_path: Path) -> None:
    """Fewer tokens, the same bytes; and the file that goes out is the one that came in."""
    content = plain(["heaven and", "without form"])
    folder = write_folder(tmp_path / "folder", *random_model(), tokenizer=content)
    text = corpus(tmp_path)
    import_model(folder, tmp_path / "run", corpus=text, context=64)
    _, _, own = loaded(tmp_path / "run")
    sample = "heaven and earth was without form"
    assert {FIRST, FIRST + 1} <= {*own.encode(sample).tolist()}
    short = tmp_path / "short.jsonl"
    short.write_text("".join(json.dumps({"text": sample + x}) + "\n" for x in "abcd"))
    found = evaluate_run_on_text(
        tmp_path / "run", corpus=f"files:{short}", split="validation", width=1
    )
    assert found.results["bytes"] == len(sample) + 1
    export_run(tmp_path / "run", tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == content
    import_model(tmp_path / "out", tmp_path / "back", corpus=text, context=64)
    assert loaded(tmp_path / "back")[2].hash == own.hash


def test_runs_that_were_imported_before_read_as_they_did() -> None:
    """Without the setting in the manifest: letters, and the hash of before."""
    content = plain(["heaven and"])
    now = read(content)
    manifest = dataclasses.replace(now.manifest, settings={})
    before = Tokenizer(manifest, content)
    assert FIRST not in before.encode("heaven and earth").tolist()
    assert before.piece_bytes[FIRST] == b""
    identity = b"calibtrain tokenizer 1 byte_level_bpe\n" + content
    identity += json.dumps([VOCAB, {"bos": 1, "eos": 2}]).encode()
    assert before.hash == hashlib.sha256(identity).hexdigest()[:16] != now.hash
    odd = dataclasses.replace(now.manifest, settings={ADDED_TEXT: ["x"]})
    with pytest.raises(UserError, match=r"settings\.added_text"):
        Tokenizer(odd, content)
    other = dataclasses.replace(now.manifest, settings={ADDED_TEXT: [7]})
    with pytest.raises(UserError, match="no added token of id 7"):
        Tokenizer(other, content)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ([added(FIRST, "x y", lstrip=True)], "'x y' takes the white space .*lstrip"),
        ([added(FIRST, "x y", rstrip=True)], "rstrip"),
        ([{"id": FIRST, "content": "x y"}], "'x y': special is missing; it must be true or false"),
        ([added(FIRST, "x y", special="no")], "special is 'no'"),  # type: ignore[arg-type]
        ([added(FIRST, "x"), added(FIRST, "y z")], "ids|is both"),
        ([added(FIRST, "x y"), added(FIRST, "z w")], f"id {FIRST} is both 'x y' and 'z w'"),
        ([added(FIRST, "x y"), added(FIRST, "x y")], "'x y' is listed twice"),
        ([added(FIRST, "x y"), added(FIRST + 1, "x y")], "'x y' has the ids"),
        ([added(5, "x y")], "id 5 is both"),
        ([added(OWN["model"]["vocab"]["é"], "é")], "'é' as an added token, and for the bytes"),
        ([added(FIRST, "\ud800 ")], "lone surrogate"),
        ([added(FIRST, "x y"), {"id": "9", "content": "z"}], "no id or text"),
    ],
)
def test_what_does_not_come_back_is_refused(tokens: list[Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(with_added(*tokens))


def test_many_added_tokens_are_compared_at_once() -> None:
    tokens = [AddedToken(index, f"token {index}", {}) for index in range(200_000)]
    require_distinct({}, tokens)
    with pytest.raises(UserError, match=r"^added token 'token 7' is listed twice; the file is"):
        require_distinct({}, [*tokens, tokens[7]])


def test_numbers_that_the_tokenizers_package_would_not_give_are_refused(tmp_path: Path) -> None:
    content = with_added(added(FIRST + 3, "x y"))
    folder = write_folder(tmp_path / "folder", *random_model(), tokenizer=content)
    with pytest.raises(UserError, match=f"'x y' has id {FIRST + 3}.* numbers it {FIRST}"):
        import_model(folder, tmp_path / "run", corpus=corpus(tmp_path))


def test_composed_tokens() -> None:
    """A token that is composed before it is looked for would not come back."""
    compose = {"type": "NFC"}
    for flag in (True, False):
        content = with_added(added(FIRST, "xe\u0301", normalized=flag), normalizer=compose)
        if flag:
            with pytest.raises(UserError, match="composed"):
                read(content)
        else:
            assert read(content).encode("xe\u0301").tolist() == [FIRST]
    assert read(plain(["a b"], normalized=True)).encode("a b").tolist() == [FIRST]


def test_what_frames_a_document_is_never_text() -> None:
    found = ForeignTokenizer.byte_level(plain(["</doc>", "a b"]), VOCAB, Marks(1, "</doc>"), "x")
    assert found.tokenizer.eos_id == FIRST
    assert found.tokenizer.piece_bytes[FIRST] == b""
    assert found.tokenizer.encode("a b").tolist() == [FIRST + 1]
    assert len(found.tokenizer.encode("</doc>")) > 1
    assert any("</doc>" in note for note in found.notes)


def test_user_defined_tokens_of_a_gguf_file(tmp_path: Path) -> None:
    """Type 4 is text, as llama.cpp reads it; types 3 (control) and 5 (unused) are not."""
    pytest.importorskip("gguf")
    vocabulary = sorted(OWN["model"]["vocab"], key=OWN["model"]["vocab"].get)
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*vocabulary, "heaven and", "<pad>", "  "],
        "tokenizer.ggml.token_type": [*(3 if t in SPECIALS else 1 for t in vocabulary), 4, 5, 4],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in OWN["model"]["merges"]],
    }
    own = read(from_metadata(metadata, "x"), FIRST + 3)
    ids = own.encode("heaven and  <pad>").tolist()
    assert ids[:2] == [FIRST, FIRST + 2]
    assert FIRST + 1 not in ids
    assert own.decode(ids) == b"heaven and  <pad>"
    path = write(tmp_path / "model.gguf", *random_model(vocab=FIRST))
    import_model(path, tmp_path / "run", corpus=corpus(tmp_path))
    assert ADDED_TEXT not in loaded(tmp_path / "run")[2].manifest.settings


def test_marks_of_a_gguf_file_keep_their_numbers_where_they_are_written() -> None:
    """Also those in front, which the tokenizers package would number behind all others."""
    from tokenizers import Tokenizer as Theirs

    pieces = sorted(set(OWN["model"]["vocab"]) - set(SPECIALS), key=OWN["model"]["vocab"].get)
    tokens = ["<first>", *SPECIALS, *pieces, "<last>"]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1 if token in pieces else 3 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in OWN["model"]["merges"]],
    }
    own = read(from_metadata(metadata, "x"), len(tokens))
    written, _ = tokenizer_files(own, 64)
    theirs = Theirs.from_str(written["tokenizer.json"].decode())
    assert [theirs.token_to_id(token) for token in tokens] == list(range(len(tokens)))
    for text in texts():
        assert theirs.encode(text, add_special_tokens=False).ids == own.encode(text).tolist()


def test_what_lies_beside_a_sentencepiece_model(tmp_path: Path) -> None:
    """Its own file says how text is cut; what the others add is refused or noted."""
    config = tiny(tokenizer={"kind": "unigram", "vocab_size": 300}).tokenizer
    own = train_tokenizer(config, texts(), corpus_hash="", corpus_name="texts")
    files, _ = tokenizer_files(own, 64)
    tree = json.loads(files["tokenizer.json"])
    network, params = random_model(vocab=300)
    ids = {"bos_token_id": own.bos_id, "eos_token_id": own.eos_id}

    def opened(content: bytes = files["tokenizer.json"], **changes: Any) -> Any:
        folder = write_folder(
            tmp_path / "folder", network, params, tokenizer=content, changes={**ids, **changes}
        )
        (folder / "tokenizer.model").write_bytes(files["tokenizer.model"])
        return open_pretrained(folder)

    assert opened().notes == ()
    assert "bos_token_id 9; the tokenizer's" in opened(bos_token_id=9).notes[0]
    for index in (300, -1, "1"):
        with pytest.raises(UserError, match=r"bos_token_id is .*in the vocabulary"):
            opened(bos_token_id=index)
    with pytest.raises(UserError, match=r"added token 'x y' is text, and tokenizer\.model"):
        opened(json.dumps({**tree, "added_tokens": [added(300, "x y")]}).encode())
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer"):
        opened(files["tokenizer.json"][:-9])
    tree["model"]["vocab"][40:] = reversed(tree["model"]["vocab"][40:])
    found = opened(json.dumps(tree).encode())
    assert found.notes == ("tokenizer.json gives other tokens than tokenizer.model, which is used",)
    (tmp_path / "folder" / "added_tokens.json").write_text(json.dumps({"x y": 300}))
    with pytest.raises(UserError, match="added token 'x y' is text"):
        open_pretrained(tmp_path / "folder")
    (tmp_path / "folder" / "special_tokens_map.json").write_text(json.dumps({"pad_token": "x y"}))
    assert open_pretrained(tmp_path / "folder").notes == found.notes
