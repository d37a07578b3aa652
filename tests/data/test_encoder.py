"""Documents are encoded on any number of cores: the same ids, in their order, the same errors."""

import dataclasses
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from calibtrain.cli.terminal import describe
from calibtrain.config import CorpusConfig, TokenizerConfig, validate
from calibtrain.data.batches.store import open_store, read_store, write_store
from calibtrain.data.corpora.corpus import Document, open_corpus
from calibtrain.data.tokenizers import encoder
from calibtrain.data.tokenizers.encoder import encode_documents
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_choice import obtain_tokenizer
from calibtrain.errors import UserError

MARKOV = {"name": "markov", "markov": {"words": 40, "successors": 5, "bytes": 40_000}}
ODD = ["", "吾輩は猫である。", " \u2581 two  spaces \u2581", "\r\n\0", "e\u0301 \U0001f469", ""]


@pytest.fixture(scope="module", params=["unigram", "byte"])
def tokenizer(request: pytest.FixtureRequest, cache: Path) -> Tokenizer:
    corpus = open_corpus(validate(CorpusConfig, MARKOV), cache)
    config = TokenizerConfig(kind=request.param, vocab_size=290 if request.param != "byte" else 258)
    return obtain_tokenizer(config, corpus, cache)


@pytest.fixture
def documents(cache: Path) -> list[Document]:
    corpus = open_corpus(validate(CorpusConfig, MARKOV), cache)
    odd = [Document(f"odd{index}", text) for index, text in enumerate(ODD)]
    return [*odd, *corpus.documents("validation"), *odd, Document("long", "".join(ODD) * 300)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "_CHARACTERS", 50)
    monkeypatch.setattr(encoder, "_DOCUMENTS", 4)


@pytest.mark.parametrize("cores", [1, 2, 7])
def test_a_store_is_what_each_document_is_alone_on_any_number_of_cores(
    tokenizer: Tokenizer, documents: list[Document], cores: int, tmp_path: Path
) -> None:
    size = write_store(tmp_path, documents, tokenizer, cores=cores)
    store = read_store(tmp_path)
    assert store.document_ids == tuple(document.id for document in documents)
    assert size == store.bytes == sum(len(document.text.encode()) for document in documents)
    counts = np.zeros(tokenizer.vocab_size, int)
    for index, document in enumerate(documents):
        alone = [tokenizer.bos_id, *tokenizer.encode(document.text), tokenizer.eos_id]
        np.testing.assert_array_equal(store.document(index), alone)
        assert tokenizer.decode(store.document(index)) == document.text.encode()
        np.add.at(counts, alone[1:], 1)
    np.testing.assert_array_equal(store.counts, counts)


def test_the_files_of_a_store_do_not_depend_on_the_number_of_cores(
    tokenizer: Tokenizer, documents: list[Document], tmp_path: Path
) -> None:
    found = []
    for cores in (1, 3):
        folder = tmp_path / str(cores)
        folder.mkdir()
        write_store(folder, documents, tokenizer, cores=cores)
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert found[0] == found[1]


@pytest.mark.parametrize("cores", [1, 4])
def test_the_first_document_without_bytes_is_named(
    tokenizer: Tokenizer, documents: list[Document], cores: int
) -> None:
    bad = [Document("first", "\u00e9\ud800"), *documents, Document("second", "\udfff")]
    with pytest.raises(UserError, match=r"^document 'first': byte 2: a lone surrogate"):
        list(encode_documents(tokenizer, [*documents, *bad], cores=cores))


def merging_model(like: Tokenizer) -> Tokenizer:
    """A tokenizer that drops spaces at both ends of a text: SentencePiece's default."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a b c a b c ab bc"] * 20),
        model_writer=model,
        vocab_size=270,
        hard_vocab_limit=False,
        byte_fallback=True,
        add_dummy_prefix=False,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    data = model.getvalue()
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    manifest = dataclasses.replace(
        like.manifest,
        kind="unigram",
        vocab_size=processor.vocab_size(),
        model_hash=hashlib.sha256(data).hexdigest(),
        specials={"unk": processor.unk_id(), "bos": processor.bos_id(), "eos": processor.eos_id()},
    )
    return Tokenizer(manifest, data)


def test_a_document_that_loses_a_space_is_named(tokenizer: Tokenizer) -> None:
    lossy = merging_model(tokenizer)
    documents = [Document(f"{index}", "a b c") for index in range(20)]
    list(encode_documents(lossy, documents))
    documents[13] = Document("thirteen", "a  b")
    documents[14] = Document("fourteen", "a  b")
    with pytest.raises(UserError, match=r"^document 'thirteen': byte 2: the tokenizer gives back"):
        list(encode_documents(lossy, documents, cores=3))


class Shifting:
    """A tokenizer that moves the last byte of each text to the start of the next."""

    bos_id, eos_id, byte_lengths = 256, 257, np.array([1] * 256 + [0, 0])

    def __init__(self) -> None:
        self.kept = b""

    def encode_batch(self, texts: list[str], threads: int | None = None) -> list[np.ndarray]:
        return [self.encode(text) for text in texts]

    def encode(self, text: str) -> np.ndarray:
        raw = self.kept + text.encode()
        self.kept = raw[-1:]
        return np.frombuffer(raw[:-1], np.uint8).astype(np.int32)

    def decode(self, ids: np.ndarray) -> bytes:
        return bytes(index for index in ids if index < 256)


def test_bytes_that_move_to_the_next_document_are_noticed() -> None:
    documents = [Document("one", "ab"), Document("two", "cd"), Document("three", "")]
    with pytest.raises(UserError, match=r"^document 'one'"):
        list(encode_documents(Shifting(), documents))  # type: ignore[arg-type]


def test_documents_are_read_only_a_few_batches_ahead(tokenizer: Tokenizer) -> None:
    read = 0

    def endless() -> Iterator[Document]:
        nonlocal read
        while True:
            read += 1
            yield Document(str(read), "x" * 100)  # a batch each

    encoded = encode_documents(tokenizer, endless(), cores=2)
    for batches in range(1, 50):
        assert next(encoded).names == (str(batches),)
        assert read <= batches + 3 * 2
    encoded.close()


def test_a_store_says_once_how_fast_it_was_made(
    tokenizer: Tokenizer, cache: Path, tmp_path: Path
) -> None:
    corpus = open_corpus(validate(CorpusConfig, MARKOV), cache)
    told: list = []
    for _ in range(2):
        store = open_store(corpus, "train", tokenizer, tmp_path, told.append)
    (event,) = told
    assert event.pop("seconds") > 0
    assert event == {"event": "tokenised", "split": "train", "bytes": store.bytes}
    said = describe({"event": "tokenised", "split": "train", "bytes": 6_000_000, "seconds": 1.2})
    assert said == "tokenised 6.0 MB in 1.20 s (5.0 MB/s), train split"
