"""Texts in files that are odd, damaged or not what their names say."""

import contextlib
import gzip
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuzz import runs
from fuzz.damage import ODD_VALUES, cut, flip, lengthen, zero
from fuzz.verdict import Case, Step

COUNT = 100
WORDS = ("in", "the", "beginning", "was", "word", "naïve", "你好", "\U0001f600", "e\u0301", "good")


def prepare(base: Path, compiled: Path) -> dict[str, Any]:
    """A small run to measure texts with."""
    place = base / "whole"
    place.mkdir(parents=True)
    config = {**runs.CONFIG, "tokenizer": {"kind": "byte"}}
    (place / "c.yaml").write_text(json.dumps(config))
    runs.succeed(place, runs.TRAIN, compiled)
    return {}


def make(number: int, rng: random.Random, base: Path, place: Path) -> Case:
    """A file in a folder, and a command that reads it."""
    shutil.copytree(base / "whole", place, symlinks=True)
    folder = place / rng.choice(["texts", "te xts", "t[1]", "t\u00e9"])
    folder.mkdir()
    kind = rng.choice(KINDS)
    path = folder / ("a" + SUFFIXES[kind])
    said = kind(path, rng)
    if rng.random() < 0.4 and path.is_file() and not path.is_symlink():
        said += "; " + rng.choice([flip, cut, zero, lengthen])(path, rng)
    if rng.random() < 0.3 and path.exists() and not path.is_dir():
        odd = rng.choice(["a.txt", "a.jsonl", "a.parquet", "a.jsonl.gz", "a.TXT", "a", "a.csv"])
        path = path.rename(folder / odd)
    named = str(path.relative_to(place)) if rng.random() < 0.7 else f"{folder.name}/*"
    if rng.random() < 0.6:
        arguments = ("evaluate", "run", "--corpus", f"files:{named}", "--split", "train",
                     "--bytes", "2000", "--json")  # fmt: skip
        step = Step(arguments)
    else:
        options = rng.choice([[], [], ["corpus.field=body"], ["corpus.group=topic"]])
        step = Step(
            ("train", "c.yaml", "--run", "new", "--progress", "none", "budget.steps=1",
             "corpus.name=files", f"corpus.paths={json.dumps([named])}", *options),
            makes=("new",),
        )  # fmt: skip
    return Case(f"{path.relative_to(place)}: {said}", (step,))


def of(step: Step, place: Path, printed: str) -> Any:
    """Nothing is compared of a text."""
    return None


def _text(rng: random.Random, words: int = 400) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words)) + "\n"


def plain(path: Path, rng: random.Random) -> str:
    """Text in some encoding, with odd characters and ends of lines."""
    encoding = rng.choice(["utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32", "cp1252"])
    end = rng.choice(["\n", "\r\n", "\r", "\u2028", "\0", "\x1a"])
    text = end.join(_text(rng, 40).strip() for _ in range(rng.choice([1, 30])))
    path.write_bytes(text.encode(encoding, "replace"))
    return f"text in {encoding}, lines end with {end!r}"


def noise(path: Path, rng: random.Random) -> str:
    """Random bytes."""
    size = rng.choice([0, 1, 2, 3, 100, 65_537])
    path.write_bytes(rng.randbytes(size))
    return f"{size} random bytes"


def sparse(path: Path, rng: random.Random) -> str:
    """Bytes that say little: nothing, blanks, one letter, a single long line."""
    body = rng.choice(
        [b"", b"\n" * 1000, b" " * 1000, b"a", b"a" * 300_000, b"\xef\xbb\xbf", b"\0"]
    )
    path.write_bytes(body)
    return f"{len(body)} times {body[:3]!r}"


def lines(path: Path, rng: random.Random) -> str:
    """JSON lines of which some are odd."""
    rows = [json.dumps({"text": _text(rng, 30), "topic": rng.choice("ab")}) for _ in range(30)]
    odd = rng.choice(
        [
            "", " ", "null", "[]", "3", '"x"', "{}",
            '{"text": null}', '{"text": 3}', "{", "nonsense",
            '{"text": "a", "text": "b"}', '{"text": ["a"]}', '{"text": "\\ud800"}', '{"body": "a"}',
            "[" * 100_000,
            '{"text": ' + "9" * 5000 + "}", '{"text": "a"} {"text": "b"}', "\ufeff{}",
            '{"text": ""}', '{"text": NaN}', '{"text": "\\u0000"}', '{"TEXT": "a"}', "\x1e{}",
            '{"text": "a", "topic": 3}', '{"text": "a", "x": ' + "[" * 2000 + "]" * 2000 + "}",
            json.dumps({"text": rng.choice(["x" * 200_000, *map(str, ODD_VALUES)])}),
        ]
    )  # fmt: skip
    rows[rng.choice([0, 5, -1])] = odd
    if rng.random() < 0.2:
        rows = [odd]
    path.write_bytes("\n".join(rows).encode("utf-8", "surrogatepass"))
    return f"JSON lines with {odd[:50]!r}"


def packed(path: Path, rng: random.Random) -> str:
    """JSON lines in gzip: two members, cut, with rubbish behind, not gzip at all, or a bomb."""
    rows = "".join(json.dumps({"text": _text(rng, 30)}) + "\n" for _ in range(30)).encode()
    data = gzip.compress(rows, mtime=0)
    way = rng.choice(["two members", "cut", "rubbish", "not packed", "twice", "zeros", "checksum"])
    changed = {
        "two members": data + data,
        "cut": data[: rng.randrange(len(data))],
        "rubbish": data + rng.randbytes(50),
        "not packed": rows,
        "twice": gzip.compress(data, mtime=0),
        "zeros": gzip.compress(bytes(20_000_000), mtime=0),
        "checksum": data[:-8] + bytes(8),
    }
    path.write_bytes(changed[way])
    return f"gzip: {way}"


def table(path: Path, rng: random.Random) -> str:
    """Parquet of an odd schema."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = [_text(rng, 30) for _ in range(20)]
    several: dict[str, Callable[[], Any]] = {
        "plain": lambda: pa.table({"text": texts}),
        "twice": lambda: pa.Table.from_arrays([pa.array(texts)] * 2, names=["text", "text"]),
        "no rows": lambda: pa.table({"text": pa.array([], pa.string())}),
        "no columns": lambda: pa.table({}),
        "numbers": lambda: pa.table({"text": list(range(20))}),
        "nulls": lambda: pa.table({"text": [None, *texts[1:]]}),
        "all null": lambda: pa.table({"text": pa.nulls(20)}),
        "bytes": lambda: pa.table({"text": [text.encode() for text in texts]}),
        "bytes that are not text": lambda: pa.table({"text": [b"\xff\xfe"] * 20}),
        "lists": lambda: pa.table({"text": [[text] for text in texts]}),
        "structs": lambda: pa.table({"text": [{"a": text} for text in texts]}),
        "large": lambda: pa.table({"text": pa.array(texts, pa.large_string())}),
        "dictionary": lambda: pa.table({"text": pa.array(texts).dictionary_encode()}),
        "views": lambda: pa.table({"text": pa.array(texts, pa.string_view())}),
        "dates": lambda: pa.table({"text": pa.array([0] * 20, pa.date32())}),
        "another name": lambda: pa.table({"Text": texts}),
        "dots": lambda: pa.table({"a.text": texts, "text ": texts}),
        "group twice": lambda: pa.Table.from_arrays(
            [pa.array(texts), pa.array(["a"] * 20), pa.array(["b"] * 20)],
            names=["text", "topic", "topic"],
        ),
        "groups of numbers": lambda: pa.table({"text": texts, "topic": list(range(20))}),
        "groups missing": lambda: pa.table({"text": texts, "topic": pa.nulls(20)}),
        "invalid": lambda: pa.table(
            {"text": pa.array([b"\xff\xfe"] * 20).view(pa.string())},
        ),
    }  # fmt: skip
    way = rng.choice(list(several))
    sink = io.BytesIO()
    pq.write_table(several[way](), sink, row_group_size=rng.choice([1, 7, 1000]))
    path.write_bytes(sink.getvalue())
    return f"parquet: {way}"


def special(path: Path, rng: random.Random) -> str:
    """What is not a file: a folder, a pipe, a link to nothing or to itself, a device."""
    way = rng.choice(["folder", "pipe", "nothing", "itself", "device", "unnamed"])
    if way == "folder":
        path.mkdir()
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "unnamed":
        path.write_text(_text(rng))
        with contextlib.suppress(OSError):
            (path.parent / os.fsdecode(b"\xff.txt")).write_text(_text(rng))
    else:
        path.symlink_to({"nothing": "nowhere", "itself": path.name, "device": "/dev/zero"}[way])
    return f"not a file: {way}"


KINDS = (plain, noise, sparse, lines, lines, lines, packed, table, table, special)
SUFFIXES = {
    plain: ".txt", noise: ".txt", sparse: ".txt", lines: ".jsonl", packed: ".jsonl.gz",
    table: ".parquet", special: ".txt",
}  # fmt: skip
