"""Damage to files and folders: what disks, hands and other programs do to them."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

ODD_NAMES = ("99", "007", "1e3", "-1", "9" * 40, "state", ".hidden", "a b", "é\u202e", "x.tmp-1")
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -0.0, 1e-300, 1e308, float("inf"),
    float("nan"), "", "x", "0", "é\u202e\x00", "9" * 5000, [], [1], {}, {"a": 1}, [[[]]],
)  # fmt: skip


def damage_file(path: Path, rng: random.Random) -> str:
    """Damage a file in some way; in words, what was done."""
    way = rng.choice(
        [flip, flip, flip, zero, cut, cut, empty, lengthen, remove, into_folder, swap, dangle]
    )
    if path.suffix in (".json", ".jsonl") and rng.random() < 0.5:
        way = alter_json
    if path.is_dir():
        way = rng.choice([remove, empty_folder, into_file, add_file, add_file, rename])
    return way(path, rng)


def flip(path: Path, rng: random.Random) -> str:
    """Change one to three bytes."""
    data = bytearray(path.read_bytes())
    if not data:
        return lengthen(path, rng)
    places = sorted(rng.randrange(len(data)) for _ in range(rng.choice([1, 1, 3])))
    for place in places:
        data[place] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
    path.write_bytes(data)
    return f"bytes {places} of {len(data)} changed"


def zero(path: Path, rng: random.Random) -> str:
    """Zeros in place of a stretch, as after a crash of the machine."""
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data) + 1)
    length = min(len(data) - start, rng.choice([1, 16, 512, 4096, 10**6]))
    data[start : start + length] = bytes(length)
    path.write_bytes(data)
    return f"{length} bytes zeroed from {start} of {len(data)}"


def cut(path: Path, rng: random.Random) -> str:
    """The end is missing."""
    data = path.read_bytes()
    keep = rng.choice([len(data) - 1, len(data) // 2, rng.randrange(len(data) + 1)])
    keep = max(0, keep)
    path.write_bytes(data[:keep])
    return f"cut to {keep} of {len(data)} bytes"


def empty(path: Path, rng: random.Random) -> str:
    """Nothing is left in the file."""
    path.write_bytes(b"")
    return "emptied"


def lengthen(path: Path, rng: random.Random) -> str:
    """More than there should be."""
    more = rng.choice([b"\0", b"\n", b"{}", rng.randbytes(rng.choice([1, 3, 4, 100]))])
    with path.open("ab") as file:
        file.write(more)
    return f"{len(more)} bytes added: {more[:8]!r}"


def remove(path: Path, rng: random.Random) -> str:
    """It is not there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    return "removed"


def into_folder(path: Path, rng: random.Random) -> str:
    """A folder in place of a file."""
    path.unlink()
    path.mkdir()
    if rng.random() < 0.5:
        (path / "x").write_text("x")
    return "replaced by a folder"


def into_file(path: Path, rng: random.Random) -> str:
    """A file in place of a folder."""
    shutil.rmtree(path)
    path.write_text("x")
    return "replaced by a file"


def empty_folder(path: Path, rng: random.Random) -> str:
    """A folder without its files."""
    shutil.rmtree(path)
    path.mkdir()
    return "folder emptied"


def rename(path: Path, rng: random.Random) -> str:
    """Under another name."""
    name = rng.choice(ODD_NAMES)
    target = path.with_name(name)
    if target.exists():
        return add_file(path, rng)
    path.rename(target)
    return f"renamed to {name[:20]!r}"


def dangle(path: Path, rng: random.Random) -> str:
    """A link to nothing, or to itself."""
    path.unlink()
    path.symlink_to(rng.choice(["nowhere", path.name]))
    return "replaced by a link to nothing"


def swap(path: Path, rng: random.Random) -> str:
    """Two files of the folder in each other's place."""
    others = [other for other in sorted(path.parent.iterdir()) if other.is_file() and other != path]
    if not others:
        return flip(path, rng)
    other = rng.choice(others)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)
    return f"swapped with {other.name}" + (" (equal)" if mine == theirs else "")


def add_file(path: Path, rng: random.Random) -> str:
    """Something that does not belong there."""
    name = rng.choice(ODD_NAMES)
    target = path / name
    if rng.random() < 0.5:
        target.mkdir(exist_ok=True)
        return f"an extra folder {name[:20]!r}"
    if not target.exists():
        target.write_bytes(rng.choice([b"", b"x", b"{}", rng.randbytes(64)]))
    return f"an extra file {name[:20]!r}"


def alter_json(path: Path, rng: random.Random) -> str:
    """A key that is missing, renamed, of another type, out of range or given twice."""
    text = path.read_bytes().decode("utf-8")
    lines = text.splitlines() if path.suffix == ".jsonl" else [text]
    at = rng.randrange(len(lines)) if lines else 0
    try:
        document = json.loads(lines[at])
    except (ValueError, IndexError):
        return flip(path, rng)
    document, said = altered(document, rng)
    lines[at] = document
    path.write_text("\n".join(lines) + ("\n" if path.suffix == ".jsonl" else ""), encoding="utf-8")
    return said


def altered(document: Any, rng: random.Random) -> tuple[str, str]:
    """A JSON document with something wrong in it, as text; and what."""
    places = list(_places(document))
    if not places:
        return json.dumps(rng.choice(ODD_VALUES)), "the document replaced"
    holder, key = rng.choice(places)
    way = rng.choice(["missing", "renamed", "value", "value", "value", "added", "twice", "deep"])
    name = f"key {key!r}" if isinstance(holder, dict) else f"element {key}"
    if way == "missing":
        del holder[key]
    elif way == "renamed" and isinstance(holder, dict):
        holder[f"{key}_"] = holder.pop(key)
    elif way == "added" and isinstance(holder, dict):
        holder["unheard_of"] = rng.choice(ODD_VALUES)
    elif way == "twice" and isinstance(holder, dict):
        mark = "\0mark\0"
        value, holder[key] = holder[key], mark
        twice = f"{json.dumps(value)}, {json.dumps(key)}: {json.dumps(rng.choice(ODD_VALUES))}"
        return json.dumps(document).replace(json.dumps(mark), twice), f"{name} twice"
    elif way == "deep":
        mark = "\0mark\0"
        holder[key] = mark
        deep = "[" * 100_000 + "]" * 100_000
        return json.dumps(document).replace(json.dumps(mark), deep), f"{name} nested deeply"
    else:
        value = rng.choice([v for v in ODD_VALUES if v != holder[key]])
        if isinstance(holder[key], int | float) and rng.random() < 0.4:
            value = rng.choice([holder[key] + 1, holder[key] * 2, -holder[key], holder[key] / 3])
        holder[key] = value
        return json.dumps(document), f"{name} is {str(value)[:30]!r}"
    return json.dumps(document), f"{name} {way}"


def _places(tree: Any) -> Any:
    """Every (holder, key) of a document; of long lists a few."""
    items: Any = ()
    if isinstance(tree, dict):
        items = list(tree.items())
    elif isinstance(tree, list):
        items = list(enumerate(tree))[:5]
    for key, value in items:
        yield tree, key
        yield from _places(value)
