"""Models of others that are damaged: read, or refused in one line; nothing hangs or is guessed."""

import json
import os
import random
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from foreign import VOCAB, corpus, random_model, write_folder
from test_gguf import write

from calibtrain.errors import UserError
from calibtrain.interchange import import_model
from calibtrain.interchange.pretrained import open_pretrained
from calibtrain.models import build

pytest.importorskip("safetensors")
pytest.importorskip("gguf")

SMALL = {"width": 16, "depth": 1, "feed_forward_width": 16}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DEEP = "[" * 100_000 + "]" * 100_000
LONG = "9" * 5000


def outcome(path: Path) -> str:
    """The message with which a model is refused, or nothing."""
    started = time.monotonic()
    try:
        model = open_pretrained(path)
        model.parameters(build(model.architecture.model, VOCAB))
    except UserError as error:
        message = str(error)
        assert "\n" not in message
        assert len(message) < 1000
        message.encode()
        return message
    finally:
        assert time.monotonic() - started < 20
    return ""


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_folder(tmp_path_factory.mktemp("good") / "folder", *random_model(**SMALL))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "folder"))


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_json_that_cannot_be_meant(name: str, folder: Path) -> None:
    path = folder / name
    text = path.read_text().strip()
    first = json.loads(text).popitem()[0]
    for inside, words in (
        (f'"q": {DEEP}', "nested too deeply"),
        (f'"q": {LONG}', "5,000 digits"),
        (f'"{first}": 1', f"key '{first}' is given twice"),
    ):
        path.write_text(f"{text[:-1]}, {inside}}}")
        assert words in outcome(folder)
    for content in (b"", b"[]", text.encode()[:-1], b"\xff" + text.encode(), b"null"):
        path.write_bytes(content)
        assert name in outcome(folder)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f'{{"weight_map": {DEEP}}}', "nested too deeply"),
        (f'{{"weight_map": {{"x": {LONG}}}}}', "5,000 digits"),
        ('{"weight_map": {"x": "a", "x": "b"}}', "given twice"),
        ('{"weight_map": {"x": "' + "a" * 5000 + '.safetensors"}}', "which is not there"),
        ('{"weight_map": {"x": "a\\u0000.safetensors"}}', "which is not there"),
        ('{"weight_map": {}}', "names no tensors"),
        ('{"weight_map": [1]}', "must be an object"),
        ('{"weight_map": {"lm_head.weight": "one.safetensors"}}', "INDEX does not name it"),
    ],
)
def test_an_index_that_cannot_be_meant(content: str, words: str, folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "one.safetensors")
    (folder / INDEX).write_text(content)
    assert words.replace("INDEX", INDEX) in outcome(folder)


def test_a_header_of_safetensors_that_cannot_be_meant(folder: Path) -> None:
    path = folder / WEIGHTS
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, rest = whole[8 : 8 + length].decode().strip(), whole[8 + length :]
    name = "model.norm.weight"
    twice = f'{{"{name}": {json.dumps(json.loads(header)[name])}, {header[1:]}'
    for text in (twice, header.replace('"shape":[', f'"shape":[{LONG},', 1), DEEP):
        path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + rest)
        assert "is not a whole safetensors file" in outcome(folder)
    for size in (0, 1, 2**40, 2**63, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", size) + whole[8:])
        assert "is not a whole safetensors file" in outcome(folder)


@pytest.mark.parametrize("content", [b"", b"\x0a\x03\x0a\x01a", bytes(range(256)) * 4, b"\0" * 99])
def test_a_sentencepiece_model_that_is_none(content: bytes, folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(content)
    assert "tokenizer.model" in outcome(folder)


def test_gguf_counts_and_lengths_beyond_the_file(tmp_path: Path) -> None:
    """The gguf package runs on for an array of 2^60 numbers; the head is checked before."""
    path = write(tmp_path / "model.gguf", *random_model(**SMALL))
    whole = path.read_bytes()
    types = whole.index(b"tokenizer.ggml.token_type") + len("tokenizer.ggml.token_type") + 8
    edits: list[Callable[[bytearray], None]] = [
        lambda b: struct.pack_into("<Q", b, types, 2**60),  # entries of an array of numbers
        lambda b: struct.pack_into("<I", b, types - 4, 9),  # an array of arrays
        lambda b: struct.pack_into("<Q", b, 8, 2**60),  # tensors
        lambda b: struct.pack_into("<Q", b, 16, 2**63),  # keys
        lambda b: struct.pack_into("<Q", b, 24, 2**64 - 1),  # length of the first key
        lambda b: struct.pack_into("<I", b, 4, 1),  # version
        lambda b: struct.pack_into("<I", b, 4, 99),
    ]
    for edit in edits:
        content = bytearray(whole)
        edit(content)
        path.write_bytes(content)
        assert "is not a whole GGUF file" in outcome(path)


def test_gguf_tensors_that_lie_elsewhere(tmp_path: Path) -> None:
    """An offset that is damaged reads one tensor as another; they must follow each other."""
    path = write(tmp_path / "model.gguf", *random_model(**SMALL))
    content = bytearray(path.read_bytes())
    name = b"blk.0.attn_v.weight"
    at = content.index(name) + len(name) + 4 + 2 * 8 + 4
    (offset,) = struct.unpack_from("<Q", content, at)
    struct.pack_into("<Q", content, at, offset + 32)
    path.write_bytes(content)
    assert "attn_v.weight begins at byte" in outcome(path)


@pytest.mark.parametrize("seed", range(3))
def test_damage_anywhere_ends_in_one_line(seed: int, folder: Path, tmp_path: Path) -> None:
    rng = random.Random(seed)
    single = write(tmp_path / "model.gguf", *random_model(**SMALL))
    kept = {path: path.read_bytes() for path in (*folder.iterdir(), single)}
    for path, whole in kept.items():
        for _ in range(6):
            content = bytearray(whole)
            for _ in range(rng.randint(1, 4)):
                content[rng.randrange(min(len(content), 3000))] = rng.randrange(256)
            if rng.random() < 0.3:
                del content[rng.randrange(len(content)) :]
            path.write_bytes(content)
            outcome(single if path == single else folder)
        path.write_bytes(whole)
    assert outcome(folder) == outcome(single) == ""


def test_names_that_are_not_utf_8(good: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff"))
    shutil.copytree(good, odd)
    text = corpus(tmp_path)
    for path, run in ((odd, tmp_path / "run"), (good, odd / "run")):
        with pytest.raises(UserError, match="is not a name in UTF-8") as error:
            import_model(path, run, corpus=text)
        str(error.value).encode()
        assert not run.exists()
