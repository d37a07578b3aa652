"""Facts about tokenizers: they lose nothing, they are what they say, refusals say what to do."""

import dataclasses
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from calibtrain.config import TokenizerConfig, validate
from calibtrain.data.corpora.documents import SplitSize
from calibtrain.data.tokenizers import tokenizer_choice
from calibtrain.data.tokenizers.sentencepiece_training import train_sentencepiece, training_lines
from calibtrain.data.tokenizers.tokenizer import Manifest, Tokenizer
from calibtrain.data.tokenizers.tokenizer_choice import (
    obtain_tokenizer,
    published_folders,
    train_tokenizer,
)
from calibtrain.data.tokenizers.tokenizer_facts import describe
from calibtrain.errors import UserError

KINDS = ("unigram", "bpe", "byte")


# --- text to train on ----------------------------------------------------------------------------

_SUBJECTS = "the river|an old keeper|every lantern|our neighbour|the younger clerk|a grey heron"
_VERBS = "follows|remembers|carries|mended|will measure|has forgotten|counts|painted"
_OBJECTS = "the narrow bridge|seven letters|a wooden boat|the market square|her brother's clock"
_ENDS = "before dawn|in 1847|without a word|near the harbour|again and again|on Thursday"

JAPANESE = [
    "春の朝、古い町の駅に小さな列車が着いた。人々は静かに降りて、川沿いの道を歩いて行く。",
    "彼女は窓を開けて海を見ていた。波の音が部屋の中まで届き、机の上の手紙が少し揺れた。",
    "図書館の階段を上ると、天井の高い部屋に本棚が並んでいる。老人が眼鏡を拭きながら頁をめくる。",
    "雨が止んだので、子供たちは庭に出て遊び始めた。犬も嬉しそうに走り回り、泥だらけになった。",
]


def english(sentences: int, seed: int = 0) -> list[str]:
    """Documents of about ten sentences each."""
    draw = random.Random(seed)
    parts = [part.split("|") for part in (_SUBJECTS, _VERBS, _OBJECTS, _ENDS)]
    lines = [" ".join(map(draw.choice, parts)).capitalize() + "." for _ in range(sentences)]
    return ["\n".join(lines[start : start + 10]) for start in range(0, sentences, 10)]


TEXTS = english(600)


@dataclasses.dataclass(frozen=True)
class SmallDocument:
    id: str
    text: str


@dataclasses.dataclass(frozen=True)
class SmallProvenance:
    name: str
    content_hash: str
    splits: dict[str, SplitSize]


class SmallCorpus:
    """A corpus in memory, counting how often its training split is asked for."""

    def __init__(self, texts: Sequence[str], content_hash: str = "0123456789abcdef"):
        size = SplitSize(len(texts), sum(len(text.encode()) for text in texts))
        self.provenance = SmallProvenance("small", content_hash, {"train": size})
        self.train = [SmallDocument(f"doc-{index}", text) for index, text in enumerate(texts)]
        self.asked = 0

    def documents(self, split: str) -> Sequence[SmallDocument]:
        assert split == "train"
        self.asked += 1
        return self.train


def settings_of(kind: str, vocab_size: int = 330, **others) -> TokenizerConfig:
    if kind == "byte":
        return TokenizerConfig(kind="byte")
    return TokenizerConfig.model_validate({"kind": kind, "vocab_size": vocab_size, **others})


def trained(kind: str, vocab_size: int = 330, texts: Iterable[str] = TEXTS, **others) -> Tokenizer:
    config = settings_of(kind, vocab_size, **others)
    return train_tokenizer(config, texts, corpus_hash="0123456789abcdef", corpus_name="small")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request) -> Tokenizer:
    return trained(request.param)


@pytest.fixture(scope="module")
def unigram() -> Tokenizer:
    return trained("unigram")


# --- lossless ------------------------------------------------------------------------------------

TEXTS_THAT_BREAK_TOKENIZERS = {
    "empty": "",
    "only spaces": "     ",
    "leading, multiple and trailing spaces": "  a   b  ",
    "newlines": "\n\na\n\n\nb\n",
    "the letter SentencePiece writes for a space": "a\u2581b \u2581\u2581 c\u2581",
    "only that letter": "\u2581",
    "the letter SentencePiece writes for unknown": "a\u2585b \u2047 c",
    "NUL": "\0a\0\0b\0",
    "tabs": "a\tb\t\tc\t",
    "carriage returns": "a\r\nb\rc\r\n",
    "byte order mark": "\ufeffa\ufeff",
    "composed": "caf\u00e9 \u212b \uac00",
    "decomposed": "cafe\u0301 A\u030a \u1100\u1161",
    "many combining marks": "Z" + "\u0351\u0327\u0335" * 20,
    "emoji joined": "\U0001f469\u200d\U0001f52c \U0001f3f3\ufe0f\u200d\U0001f308",
    "emoji flags": "\U0001f1ef\U0001f1f5\U0001f1eb\U0001f1f7",
    "ideographic space": "\u3000a\u3000\u3000b",
    "other white space": "a\u00a0b\u2003c\u2028d\u2029e\u0085f\x0bg\x0ch",
    "compatibility forms": "\ufb01 \uff21 \u2460 \u00bd \u2126",
    "astral": "\U00010348\U0002070e\U0001d504\U0010ffff",
    "not characters": "\ufffd\ufffe\uffff\ufdd0\ue000",
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \u0645\u0631\u062d\u0628\u0627",
    "names of pieces": "<0x41><0x0A> <s>x</s> <unk> <pad> [UNK]</s>",
    "Japanese": "".join(JAPANESE),
}


@pytest.mark.parametrize("name", TEXTS_THAT_BREAK_TOKENIZERS)
def test_every_text_comes_back(tokenizer, name):
    text = TEXTS_THAT_BREAK_TOKENIZERS[name]
    assert_lossless(tokenizer, text)
    assert_lossless(tokenizer, f"The river {text} counts seven letters.\n{text}")


def assert_lossless(tokenizer: Tokenizer, text: str) -> None:
    raw = text.encode("utf-8")
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == raw
    assert tokenizer.byte_lengths[ids].sum() == len(raw)
    assert not set(tokenizer.manifest.specials.values()) & set(ids.tolist())


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(
        st.one_of(
            st.characters(exclude_categories=["Cs"]),
            st.sampled_from("\u2581\u2585 \n\r\t\0\ufeff\u3000<>/s0x41unkaethr"),
        )
    )
)
def test_any_text_comes_back(tokenizer, text):
    assert_lossless(tokenizer, text)


def test_a_word_of_a_hundred_thousand_letters_comes_back(tokenizer):
    assert_lossless(tokenizer, "river" * 20_000)
    assert_lossless(tokenizer, "\u2581" * 1_000 + "q" * 100_000)


def test_a_batch_is_its_texts_one_by_one_on_any_number_of_threads(tokenizer):
    texts = [*TEXTS_THAT_BREAK_TOKENIZERS.values(), *TEXTS]
    single = [tokenizer.encode(text).tolist() for text in texts]
    for threads in (None, 1, 2, 5):
        batch = tokenizer.encode_batch(texts, threads=threads)
        assert [ids.tolist() for ids in batch] == single
    assert tokenizer.encode_batch([]) == []


def test_text_that_was_never_seen_in_training_is_spelled_in_bytes(tokenizer):
    ids = tokenizer.encode("\u2581\u732b")
    assert ids.tolist() == tokenizer.byte_ids[list("\u2581\u732b".encode())].tolist()


def test_a_text_full_of_the_names_of_pieces_trains_and_comes_back():
    texts = ["<s> <unk> </s> <0x41><0x41> \u2581x\u2585y " + text for text in TEXTS]
    for kind in ("unigram", "bpe"):
        tokenizer = trained(kind, 330, texts)
        for text in texts[:20]:
            assert_lossless(tokenizer, text)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("spaces", [0, 1])
def test_a_space_comes_back_where_training_text_has_hardly_any(kind, spaces):
    # Coverage would leave the space out, and SentencePiece would then spell it as U+2581.
    texts = ["".join(JAPANESE) * 20 + " " * spaces]
    with pytest.raises(UserError) as caught:
        trained(kind, 258, texts, character_coverage=0.98)
    size = named_smallest(caught.value)
    tokenizer = trained(kind, size, texts, character_coverage=0.98)
    assert_lossless(tokenizer, "a b  \u2581 \u6625 ")


def test_a_lone_surrogate_is_refused_in_one_line(tokenizer):
    for call in (tokenizer.encode, lambda text: tokenizer.encode_batch(["fine", text])):
        with pytest.raises(UserError, match=r"lone surrogate \(U\+D800 at character 2"):
            call("ab\ud800c")
    with pytest.raises(UserError, match=r"lone surrogate"):
        tokenizer.encode("\u2581\udfff")


def test_decoding_takes_any_ids_and_refuses_those_outside(tokenizer):
    assert tokenizer.decode([]) == b""
    assert tokenizer.decode([tokenizer.bos_id, tokenizer.eos_id]) == b""
    everything = tokenizer.decode(np.arange(tokenizer.vocab_size))
    assert everything == b"".join(tokenizer.piece_bytes)
    for outside in (-1, tokenizer.vocab_size):
        with pytest.raises(IndexError):
            tokenizer.decode([outside])


# --- what a tokenizer says about itself ----------------------------------------------------------


def test_the_vocabulary_has_exactly_the_size_asked_for():
    for kind, size in (("unigram", 300), ("unigram", 350), ("bpe", 300), ("bpe", 500)):
        tokenizer = trained(kind, size)
        assert tokenizer.vocab_size == size
        assert len(tokenizer.piece_bytes) == size
        assert tokenizer.byte_lengths.shape == (size,)
    assert trained("byte").vocab_size == 258


def test_every_byte_has_a_piece_and_specials_have_no_bytes(tokenizer):
    assert [tokenizer.piece_bytes[index] for index in tokenizer.byte_ids] == [
        bytes([value]) for value in range(256)
    ]
    specials = set(tokenizer.manifest.specials.values())
    assert {tokenizer.bos_id, tokenizer.eos_id} <= specials
    assert tokenizer.bos_id != tokenizer.eos_id
    lengths = tokenizer.byte_lengths
    assert lengths.dtype == np.int32
    assert {index for index in range(len(lengths)) if lengths[index] == 0} == specials


def test_a_newline_is_a_token_by_itself(unigram):
    (newline,) = unigram.encode("\n")
    assert unigram.piece_bytes[newline] == b"\n"
    assert [piece for piece in unigram.piece_bytes if b"\n" in piece] == [
        b"\n",
        b"\n",
    ]  # and <0x0A>


def test_the_manifest_tells_the_training(tokenizer):
    manifest = tokenizer.manifest
    raw = sum(len(text.encode()) for text in TEXTS)
    tokens = sum(len(tokenizer.encode(text)) for text in TEXTS)
    assert (manifest.corpus, manifest.corpus_hash) == ("small", "0123456789abcdef")
    assert (manifest.training_bytes, manifest.training_documents) == (raw, len(TEXTS))
    assert manifest.bytes_per_token == pytest.approx(raw / tokens)
    assert manifest.vocab_size == tokenizer.vocab_size
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest
    if manifest.kind != "byte":
        assert manifest.model_hash == hashlib.sha256(tokenizer._model).hexdigest()
        assert manifest.trainer == f"sentencepiece {sentencepiece.__version__}"


def test_the_hash_tells_behaviour_not_origin():
    one, other = trained("unigram"), trained("unigram")
    assert re.fullmatch("[0-9a-f]{16}", one.hash)
    assert one.hash == other.hash
    assert len({one.hash, trained("unigram", 331).hash, trained("bpe").hash}) == 3
    assert trained("byte").hash == trained("byte", texts=["other text"]).hash


def test_a_description_counts_every_piece_once(tokenizer):
    told = describe(tokenizer)
    parts = ("byte_pieces", "character_pieces", "merged_pieces")
    assert sum(told[part] for part in parts) + len(told["specials"]) == tokenizer.vocab_size
    assert told["byte_pieces"] == 256
    json.dumps(told)
    if tokenizer.manifest.kind != "byte":
        longest = max(tokenizer.byte_lengths[index] for index in range(tokenizer.vocab_size))
        assert len(told["longest_pieces"][0].encode()) == longest


# --- training ------------------------------------------------------------------------------------


def test_no_text_is_dropped_from_training():
    long_line = " ".join(text.replace("\n", " ") for text in TEXTS)
    texts = ["a\nb\n\nc", "x\u2581y\u2585z", long_line, "q" * 10_001, "\U0001f469" * 9_000, ""]
    lines = list(training_lines(texts))
    assert all(0 < len(line.encode()) <= 16_384 for line in lines)
    kept = "".join(lines)
    assert kept == re.sub("[\n\u2581\u2585]", "", "".join(texts))
    words = [line for line in lines if line.strip() in long_line]
    assert set(" ".join(words).split()) <= {*long_line.split(), "a", "b", "c", "x", "y", "z"}


def test_a_letter_that_occurs_only_in_a_very_long_line_gets_a_piece():
    texts = [*TEXTS, "\u00fe" * 50 + " no newline here" * 2_000]
    tokenizer = trained("bpe", 330, texts, character_coverage=1.0)
    assert "\u00fe".encode() in tokenizer.piece_bytes


_TRAIN_ALONE = """
import os, sys
if hasattr(os, "sched_setaffinity") and sys.argv[1] == "one core":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from calibtrain.config import TokenizerConfig, validate
from calibtrain.data.tokenizers.tokenizer_choice import train_tokenizer
texts = sys.stdin.read().split("|")
for kind in ("unigram", "bpe"):
    config = TokenizerConfig(kind=kind, vocab_size=330)
    print(train_tokenizer(config, texts, corpus_hash="", corpus_name="").manifest.model_hash)
assert "jax" not in sys.modules
"""


def test_training_is_the_same_on_one_core_and_on_all_and_prints_nothing():
    here = [trained(kind).manifest.model_hash for kind in ("unigram", "bpe")]
    for cores in ("one core", "all cores"):
        done = subprocess.run(
            [sys.executable, "-c", _TRAIN_ALONE, cores],
            input="|".join(TEXTS),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "7"},
            check=True,
        )
        assert done.stdout.split() == here
        assert done.stderr == ""


def test_training_reads_an_iterator_once():
    assert trained("bpe", texts=iter(TEXTS)).hash == trained("bpe").hash


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_size_the_text_cannot_give_names_the_largest_that_it_can(kind):
    with pytest.raises(UserError, match=r"^tokenizer\.vocab_size: 60000 .*\b\d+$") as caught:
        trained(kind, 60_000)
    largest = int(str(caught.value).split()[-1])
    assert trained(kind, largest).vocab_size == largest
    with pytest.raises(UserError, match=rf"largest possible size is {largest}$"):
        trained(kind, largest + 1)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_size_below_the_characters_names_the_smallest_and_the_remedy(kind):
    with pytest.raises(UserError, match=r"^tokenizer\.vocab_size: 270 is too small") as caught:
        trained(kind, 270, JAPANESE)
    message = str(caught.value)
    assert "\n" not in message
    assert "tokenizer.character_coverage" in message
    smallest = named_smallest(caught.value)
    assert trained(kind, smallest, JAPANESE).vocab_size == smallest
    with pytest.raises(UserError, match=rf"smallest possible size is {smallest}\b"):
        trained(kind, smallest - 1, JAPANESE)
    with pytest.raises(UserError) as caught:
        trained(kind, 270, JAPANESE * 20, character_coverage=0.98)
    assert named_smallest(caught.value) < smallest
    assert "character_coverage" not in str(caught.value)


def named_smallest(error: UserError) -> int:
    (number,) = re.findall(r"smallest possible size is (\d+)", str(error))
    return int(number)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_training_text_is_refused(kind):
    for texts in ([], [""], ["", ""]):
        with pytest.raises(UserError, match=r"training text of corpus small is empty"):
            trained(kind, texts=texts)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize(
    "text", ["\n", "\0\0", "\u2581", "\u2585", "\t", " ", "a", "<s>", "\ufffd", "a\0", "\0 \n \0"]
)
def test_a_training_text_of_almost_nothing_ends_in_one_line(kind, text):
    with pytest.raises(UserError, match=r"^tokenizer[^\n]*$"):
        trained(kind, 300, [text])


def test_a_coverage_outside_the_trainers_range_is_refused():
    """By the configuration already: SentencePiece takes 0.98 to 1."""
    with pytest.raises(UserError, match=r"^character_coverage: 0\.5 is not allowed: .* 0\.98"):
        validate(TokenizerConfig, {"character_coverage": 0.5})


def test_a_lone_surrogate_in_the_training_text_is_refused(tokenizer):
    with pytest.raises(UserError, match="lone surrogate"):
        trained(tokenizer.manifest.kind, texts=["fine", "a\udc00b"])


# --- folders -------------------------------------------------------------------------------------


def test_a_saved_tokenizer_is_the_same_when_loaded(tokenizer, tmp_path):
    folder = tmp_path / "a" / "tokenizer"
    tokenizer.save(folder)
    tokenizer.save(folder)  # again: nothing changes
    loaded = Tokenizer.load(folder)
    expected = {"manifest.json", "tokenizer.model"}
    if tokenizer.manifest.kind == "byte":
        expected.remove("tokenizer.model")
    assert {path.name for path in folder.iterdir()} == expected
    assert (loaded.hash, loaded.manifest) == (tokenizer.hash, tokenizer.manifest)
    assert loaded.piece_bytes == tokenizer.piece_bytes
    assert loaded.encode(TEXTS[0]).tolist() == tokenizer.encode(TEXTS[0]).tolist()


def test_a_damaged_folder_is_refused_in_one_line(unigram, tmp_path):
    folder = tmp_path / "tokenizer"
    with pytest.raises(UserError, match=r"manifest\.json: no such file"):
        Tokenizer.load(folder)
    unigram.save(folder)
    model, manifest = folder / "tokenizer.model", folder / "manifest.json"
    whole_model, whole_manifest = model.read_bytes(), manifest.read_text()

    model.write_bytes(whole_model[:-7])
    with pytest.raises(UserError, match=r"tokenizer\.model: is damaged .*train it again$"):
        Tokenizer.load(folder)
    model.unlink()
    with pytest.raises(UserError, match=r"tokenizer\.model: no such file"):
        Tokenizer.load(folder)
    model.write_bytes(whole_model)

    tree = json.loads(whole_manifest)
    for content, message in (
        (whole_manifest[: len(whole_manifest) // 2], "no JSON"),
        ("", "no JSON"),
        ("[]", "format_version None"),
        (json.dumps({**tree, "format_version": 99}), "format_version 99"),
        (json.dumps({**tree, "vocab_size": "many"}), "vocab_size: "),
        (json.dumps({**tree, "vocab_size": 331}), "330 pieces"),
        (json.dumps({**tree, "surprise": 1}), "surprise: "),
        (json.dumps({key: tree[key] for key in tree if key != "kind"}), "kind: "),
    ):
        manifest.write_text(content)
        with pytest.raises(UserError, match=re.escape(message)) as caught:
            Tokenizer.load(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
    manifest.write_text(whole_manifest)
    assert Tokenizer.load(folder).hash == unigram.hash


def foreign_model(**options) -> bytes:
    """A model trained with SentencePiece's own defaults, as found elsewhere."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter("\n".join(TEXTS).split("\n")),
        model_writer=model,
        vocab_size=330,
        minloglevel=4,
        **options,
    )
    return model.getvalue()


def manifest_for(model: bytes, like: Manifest) -> Manifest:
    return dataclasses.replace(like, model_hash=hashlib.sha256(model).hexdigest())


@pytest.mark.parametrize(
    "options",
    [
        {"byte_fallback": True},
        {"byte_fallback": True, "normalization_rule_name": "identity"},
        {
            "byte_fallback": True,
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
        },
        {
            "hard_vocab_limit": False,
            "normalization_rule_name": "identity",
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
        },
    ],
)
def test_a_model_that_loses_text_is_not_loaded(unigram, tmp_path, options):
    model = foreign_model(**options)
    (tmp_path / "tokenizer.model").write_bytes(model)
    manifest = manifest_for(model, unigram.manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest.to_dict()))
    with pytest.raises(UserError, match=r"not lossless|loses text"):
        Tokenizer.load(tmp_path)


def test_the_first_document_that_does_not_come_back_is_named(unigram):
    model = foreign_model(
        byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False
    )
    lossy = Tokenizer(manifest_for(model, unigram.manifest), model)
    documents = [
        SmallDocument("plain", "The river counts."),
        SmallDocument("ligature", "The r\u00edver \ufb01nds."),
        SmallDocument("other", "\uff21"),
    ]
    with pytest.raises(UserError, match=r"^document 'ligature': byte 11: .* b'fi.*' for b'\\xef"):
        lossy.check_lossless(documents)
    unigram.check_lossless(documents)
    unigram.check_lossless([])
    with pytest.raises(UserError, match=r"^document 'bad': byte 3: a lone surrogate"):
        unigram.check_lossless([*documents, SmallDocument("bad", "a\u00e9\ud900")])


# --- vocabularies that are nested ----------------------------------------------------------------


@pytest.mark.parametrize("texts", [TEXTS, JAPANESE * 20], ids=["english", "japanese"])
def test_a_bpe_cut_from_a_larger_one_is_the_one_that_training_gives(texts):
    for size in (360, 420, 460):
        direct, cut = trained("bpe", size, texts), trained("bpe", size, texts, cut_from=460)
        assert cut.model == direct.model
        assert cut.hash == direct.hash  # it behaves the same
        assert cut.manifest.settings["cut_from"] == 460


def test_smaller_cuts_are_parts_of_larger_ones_and_lossless_even_without_all_characters():
    pieces: set[bytes] = set()
    for size in (262, 280, 330, 460):
        cut = trained("bpe", size, JAPANESE * 20, cut_from=460)
        assert cut.vocab_size == size
        assert pieces <= set(cut.piece_bytes)
        assert all(cut.gives_back(text) for text in (*JAPANESE, "and English"))
        pieces = set(cut.piece_bytes)
    characters = {letter for text in JAPANESE for letter in text}
    small = trained("bpe", 280, JAPANESE * 20, cut_from=460)
    kept = {letter for letter in characters if letter.encode() in small.piece_bytes}
    count = Counter("".join(JAPANESE))
    assert 0 < len(kept) < len(characters)  # the most frequent ones
    assert min(count[letter] for letter in kept) >= max(count[x] for x in characters - kept)


def test_a_cut_that_is_not_possible_is_refused_in_one_line():
    for said, words in (
        ({"kind": "unigram", "cut_from": 400}, "cut_from 400 is used with kind: bpe alone"),
        ({"kind": "bpe", "vocab_size": 500, "cut_from": 400}, r"cut_from \(400\) must be at least"),
    ):
        with pytest.raises(UserError, match=words):
            validate(TokenizerConfig, said)
    with pytest.raises(UserError, match=r"^tokenizer.cut_from: 90000 is more than a bpe tokenizer"):
        trained("bpe", 330, cut_from=90_000)
    with pytest.raises(UserError, match=r"vocab_size: 260 leaves no room.* 261"):
        trained("bpe", 260, cut_from=400)


# --- obtaining one -------------------------------------------------------------------------------


def test_a_tokenizer_is_trained_once_and_then_read(tmp_path):
    for kind in KINDS:
        corpus, cache = SmallCorpus(TEXTS), tmp_path / kind
        first = obtain_tokenizer(settings_of(kind), corpus, cache)
        asked = corpus.asked
        second = obtain_tokenizer(settings_of(kind), corpus, cache)
        assert corpus.asked == asked > 0
        assert (first.hash, first.manifest) == (second.hash, second.manifest)
        folders = [path for path in (cache / "tokenizers").iterdir() if path.is_dir()]
        assert len(folders) == 1
        assert Tokenizer.load(folders[0]).hash == first.hash


def test_another_corpus_size_or_coverage_is_another_tokenizer(tmp_path):
    base = obtain_tokenizer(settings_of("bpe"), SmallCorpus(TEXTS), tmp_path)
    other = SmallCorpus(english(600, seed=1), content_hash="f" * 16)
    for config, corpus in (
        (settings_of("bpe"), other),
        (settings_of("bpe", 331), SmallCorpus(TEXTS)),
        (settings_of("bpe", character_coverage=0.98), SmallCorpus(TEXTS)),
    ):
        assert obtain_tokenizer(config, corpus, tmp_path).hash != base.hash
    cut = obtain_tokenizer(settings_of("bpe", cut_from=340), SmallCorpus(TEXTS), tmp_path)
    assert (cut.hash, "cut_from" in base.manifest.settings) == (base.hash, False)


def test_processes_that_want_the_same_tokenizer_train_it_once(tmp_path, monkeypatch):
    calls = []

    def slow(config, texts):
        calls.append(config)
        time.sleep(0.3)
        return train_sentencepiece(config, texts)

    monkeypatch.setattr(tokenizer_choice, "train_sentencepiece", slow)
    hashes = []

    def want():  # the lock is per open file, so threads stand for processes
        hashes.append(obtain_tokenizer(settings_of("bpe"), SmallCorpus(TEXTS), tmp_path).hash)

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert len(hashes) == 4
    assert len(set(hashes)) == 1


def test_a_refusal_leaves_nothing_in_the_cache(tmp_path):
    with pytest.raises(UserError, match=r"^tokenizer\.vocab_size"):
        obtain_tokenizer(settings_of("unigram", 60_000), SmallCorpus(TEXTS), tmp_path)
    assert [path for path in (tmp_path / "tokenizers").iterdir() if path.is_dir()] == []


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"kind": "bpe"}, r'^tokenizer\.kind: "bpe" is not that of .*mine.*, which has "unigram"'),
        ({"kind": "byte"}, r"^tokenizer\.kind: "),
        ({"vocab_size": 512}, r"^tokenizer\.vocab_size: 512 is not that .* which has 330"),
        ({"vocab_size": 1024}, r"^tokenizer\.vocab_size: 1024 is not that .* which has 330"),
        ({"character_coverage": 0.99}, r"^tokenizer\.character_coverage: 0.99 .* has 0.9995"),
    ],
)
def test_what_is_said_of_a_given_folder_must_be_so(tmp_path, unigram, said, words):
    path = str(tmp_path / "mine")
    unigram.save(tmp_path / "mine")
    corpus = SmallCorpus(TEXTS)
    with pytest.raises(UserError, match=words) as error:
        obtain_tokenizer(TokenizerConfig(path=path, **said), corpus, tmp_path / "cache")
    assert "\n" not in str(error.value)
    right = TokenizerConfig(path=path, kind="unigram", vocab_size=330)
    assert obtain_tokenizer(right, corpus, tmp_path / "cache").hash == unigram.hash
    # defaults that are written out with all the rest, as in a run's config.yaml, say nothing
    resolved = TokenizerConfig.model_validate(TokenizerConfig(path=path).model_dump())
    assert obtain_tokenizer(resolved, corpus, tmp_path / "cache").hash == unigram.hash


def test_a_given_folder_is_used_and_a_wrong_one_names_the_key(tmp_path, unigram):
    unigram.save(tmp_path / "mine")
    corpus = SmallCorpus(["something else entirely"])
    config = TokenizerConfig(path=str(tmp_path / "mine"))
    assert obtain_tokenizer(config, corpus, tmp_path / "cache").hash == unigram.hash
    assert corpus.asked == 0
    with pytest.raises(UserError, match=r"^tokenizer\.path: .*none.*no such file"):
        obtain_tokenizer(TokenizerConfig(path=str(tmp_path / "none")), corpus, tmp_path)


def test_a_published_tokenizer_is_taken_only_when_training_would_give_it(
    tmp_path, monkeypatch, unigram
):
    unigram.save(tmp_path / "published" / "small-unigram-330")
    monkeypatch.setattr(
        tokenizer_choice,
        "published_folders",
        lambda: [tmp_path / "published" / "small-unigram-330"],
    )
    corpus, cache = SmallCorpus(TEXTS), tmp_path / "cache"
    assert obtain_tokenizer(settings_of("unigram"), corpus, cache).hash == unigram.hash
    assert corpus.asked == 0
    assert not cache.exists()

    other = SmallCorpus(TEXTS, content_hash="f" * 16)
    obtain_tokenizer(settings_of("unigram"), other, cache)
    assert other.asked > 0
    for config in (
        settings_of("bpe"),
        settings_of("unigram", 331),
        settings_of("unigram", character_coverage=1.0),
    ):
        asked = corpus.asked
        obtain_tokenizer(config, corpus, cache)
        assert corpus.asked > asked

    # A damaged one is left aside: it can be trained instead.
    model = tmp_path / "published" / "small-unigram-330" / "tokenizer.model"
    model.write_bytes(model.read_bytes()[:-1])
    asked = corpus.asked
    assert obtain_tokenizer(settings_of("unigram"), corpus, cache).hash == unigram.hash
    assert corpus.asked > asked


def test_every_published_tokenizer_is_whole_and_small():
    assert published_folders()
    for folder in published_folders():
        loaded = Tokenizer.load(folder)
        manifest = loaded.manifest
        assert folder.name == f"{manifest.corpus}-{manifest.kind}-{manifest.vocab_size}"
        assert sum(path.stat().st_size for path in folder.iterdir()) < 500_000
        for text in TEXTS_THAT_BREAK_TOKENIZERS.values():
            assert_lossless(loaded, text)
