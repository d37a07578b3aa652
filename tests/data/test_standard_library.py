import inspect
import json.decoder
import platform
import sysconfig
import textwrap
from pathlib import Path

from calibtrain.config import CorpusConfig
from calibtrain.data.corpora.corpus import open_corpus
from calibtrain.data.corpora.splits import SPLITS
from calibtrain.data.corpora.standard_library import LARGEST, _cap, _source_files


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


def test_the_library_holds_the_modules_that_python_imports() -> None:
    files = _source_files(Path(sysconfig.get_path("stdlib")))
    for module in (json.decoder, inspect, textwrap):
        assert (
            inspect.getsource(module).encode() == files[module.__name__.replace(".", "/") + ".py"]
        )
    assert "pydoc_data/topics.py" not in files
    assert list(files) == sorted(files)


def test_a_cap_draws_by_text_and_not_by_order() -> None:
    texts = {f"{n:02}.py": bytes([65 + n]) * 10 for n in range(20)}
    taken = _cap(texts, 100)
    assert len(taken) == 10
    assert list(taken) == sorted(taken)
    assert _cap(dict(reversed(texts.items())), 100) == taken
    assert set(_cap(texts, 50)) < set(taken)
    assert _cap(texts, 200) == texts
