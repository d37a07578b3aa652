"""Damage to anything that is prepared from text is noticed, told, and made good."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tiny

from calibtrain.config import Config
from calibtrain.data.batches.store import TokenStore, fits_together, open_store
from calibtrain.data.corpora.corpus import open_corpus
from calibtrain.data.tokenizers.tokenizer import Tokenizer
from calibtrain.data.tokenizers.tokenizer_choice import obtain_tokenizer
from calibtrain.storage.prepared import SEAL


@pytest.fixture(scope="module")
def config() -> Config:
    return tiny(
        corpus={"name": "markov", "markov": {"words": 24, "successors": 4, "bytes": 20_000}},
        tokenizer={"kind": "bpe", "vocab_size": 290},
    )


def opened(config: Config, cache: Path) -> tuple[Tokenizer, TokenStore]:
    corpus = open_corpus(config.corpus, cache)
    tokenizer = obtain_tokenizer(config.tokenizer, corpus, cache)
    return tokenizer, open_store(corpus, "train", tokenizer, cache)


def content(store: TokenStore) -> list[Any]:
    arrays = (store.ids, store.offsets, store.document_bytes, store.byte_lengths, store.counts)
    return [*(np.asarray(array).tolist() for array in arrays), store.document_ids]


def prepared_files(cache: Path) -> list[Path]:
    return [
        path
        for path in sorted(cache.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.name != SEAL
    ]


def test_any_file_may_be_damaged(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer, store = opened(config, tmp_path)
    expected, hashed = content(store), tokenizer.hash
    names = prepared_files(tmp_path)
    assert {path.name for path in names} >= {
        "provenance.json",
        "dataset_info.json",
        "manifest.json",
        "tokenizer.model",
        "ids.bin",
        "store.json",
    }
    for number, path in enumerate(names):
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(
            [
                whole[:middle],
                bytes(len(whole)),
                whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            ][number % 3]
        )
        caplog.clear()
        tokenizer, store = opened(config, tmp_path)
        assert tokenizer.hash == hashed
        assert content(store) == expected, path
        (line,) = caplog.messages
        assert path.name in line
        assert str(path.relative_to(tmp_path)).startswith(
            line.removeprefix(f"{tmp_path}/").partition(":")[0]
        )
    caplog.clear()
    opened(config, tmp_path)
    assert not caplog.messages


def test_a_cache_of_an_earlier_version_is_used_as_it_is(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened(config, tmp_path)
    seals = list(tmp_path.rglob(SEAL))
    assert len(seals) == 3  # corpus, tokenizer, store
    made = {path: path.stat().st_mtime_ns for path in prepared_files(tmp_path)}
    for seal in seals:
        seal.unlink()
    opened(config, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in prepared_files(tmp_path)} == made
    assert all(seal.is_file() for seal in seals)
    assert not caplog.messages


def test_damage_in_a_cache_of_an_earlier_version_is_noticed(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, store = opened(config, tmp_path)
    expected = content(store)
    for pattern in (
        "corpora/*/records/*train*",
        "tokenizers/*/tokenizer.model",
        "stores/*/ids.bin",
    ):
        (path,) = tmp_path.glob(pattern)
        whole = path.read_bytes()
        half = len(whole) // 2
        path.write_bytes(whole[:half] + bytes(40) + whole[half + 40 :])
        next(path.parents[i] / SEAL for i in (0, 1) if (path.parents[i] / SEAL).exists()).unlink()
        caplog.clear()
        assert content(opened(config, tmp_path)[1]) == expected
        (line,) = caplog.messages
        assert "the files do not fit together); it is made again" in line


def _edit(folder: Path, name: str, change: Callable[[Any], Any]) -> None:
    if name == "store.json":
        path = folder / name
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    elif name == "ids.bin":
        np.asarray(change(np.fromfile(folder / name, np.uint16)), np.uint16).tofile(folder / name)
    else:
        np.save(folder / name, change(np.load(folder / name)))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ids.bin", lambda ids: np.where(np.arange(len(ids)) == 9, 7, ids)),
        ("ids.bin", lambda ids: np.where(np.arange(len(ids)) == 9, 60_000, ids)),
        ("ids.bin", lambda ids: ids[:-3]),
        ("offsets.npy", lambda offsets: offsets[:-1]),
        ("offsets.npy", lambda offsets: offsets[::-1]),
        ("offsets.npy", lambda offsets: np.array(["a"], object)),
        ("counts.npy", lambda counts: counts[:-1]),
        ("counts.npy", lambda counts: counts + 1),
        ("byte_lengths.npy", lambda lengths: lengths + 1),
        ("document_bytes.npy", lambda sizes: sizes[::-1]),
        ("store.json", lambda meta: {**meta, "ids": meta["ids"][:-1]}),
        ("store.json", lambda meta: {**meta, "dtype": "uint8"}),
        ("store.json", lambda meta: []),
    ],
)
def test_what_a_store_holds_fits_together_or_is_refused(
    config: Config, tmp_path: Path, name: str, change: Callable[[Any], Any]
) -> None:
    tokenizer, _ = opened(config, tmp_path)
    (folder,) = (path for path in (tmp_path / "stores").iterdir() if path.is_dir())
    assert fits_together(folder, tokenizer)
    _edit(folder, name, change)
    assert not fits_together(folder, tokenizer)
