import inspect
import json.decoder
import platform
import re
import sysconfig
import textwrap
from pathlib import Path

import pytest

from calibtrain.config import CorpusConfig
from calibtrain.data.corpora.corpus import open_corpus
from calibtrain.data.corpora.splits import SPLITS
from calibtrain.data.corpora.standard_library import LARGEST, _cap, _source_files
from calibtrain.errors import UserError


def test_stdlib_is_the_source_of_the_running_library(tmp_path: Path) -> None:
    corpus = open_corpus(CorpusConfig(name="stdlib"), tmp_path)
    found = {document.id: document for split in SPLITS for document in corpus.documents(split)}
    root = Path(sysconfig.get_path("stdlib"))
    assert all(each.text.encode() == (root / name).read_bytes() for name, each in found.items())
    assert not {"test", "tests", "idlelib", "site-packages"} & {
        p for n in found for p in n.split("/")
    }
    size = sum(len(document.text.encode()) for document in found.values())
    assert LARGEST * 0.9 < size <= LARGEST
    assert {each.group == name.split("/")[0] for name, each in found.items() if "/" in name} == {
        True
    }
    assert {each.group for name, each in found.items() if "/" not in name} == {"modules"}
    assert corpus.provenance.version == f"Python {platform.python_version()}"
    everything = _source_files(root)
    whole = sum(map(len, everything.values()))
    counted = f"({len(found)} of {len(everything)} files, {size:,} of {whole:,} bytes)"
    assert (counted in corpus.provenance.source) == (size < whole)


def test_the_library_holds_the_modules_that_python_imports() -> None:
    files = _source_files(Path(sysconfig.get_path("stdlib")))
    for module in (json.decoder, inspect, textwrap):
        assert (
            inspect.getsource(module).encode() == files[module.__name__.replace(".", "/") + ".py"]
        )
    assert "pydoc_data/topics.py" not in files
    assert list(files) == sorted(files)


def test_tests_bundles_and_what_is_no_text_are_left_out(tmp_path: Path) -> None:
    kept = {"a.py": b"1", "json/b.py": b"2", "testing.py": b"3", "lib2to3/c.py": "\u00e9".encode()}
    left_out = {
        f"{folder}/x.py": b"4"
        for folder in ("test", "json/tests", "idlelib", "ensurepip", "site-packages", "config-3")
    } | {"latin.py": b"\xe9", "empty.py": b"", "_sysconfigdata__x.py": b"5", "a.txt": b"6"}
    for name, data in (kept | left_out).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "sitecustomize.py").symlink_to(tmp_path / "a.py")
    assert _source_files(tmp_path) == kept


def test_a_python_without_its_sources_is_refused_in_one_line(tmp_path: Path) -> None:
    said = f"corpus stdlib: {tmp_path} holds no source files of Python; install them"
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        _source_files(tmp_path)


def test_a_cap_draws_by_text_and_not_by_order() -> None:
    texts = {f"{n:02}.py": bytes([65 + n]) * 10 for n in range(20)}
    taken = _cap(texts, 100)
    assert len(taken) == 10
    assert list(taken) == sorted(taken)
    assert _cap(dict(reversed(texts.items())), 100) == taken
    assert set(_cap(texts, 50)) < set(taken)
    assert _cap(texts, 200) == texts
