"""The source files of the running Python's standard library, as a corpus of code."""

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from calibtrain.data.corpora.documents import Document, Source
from calibtrain.errors import UserError

LARGEST = 8_000_000
"""Bytes of source files at most; of a larger library, files are drawn by a hash of their text."""

_LEFT_OUT = {
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "ensurepip",
    "site-packages",
    "dist-packages",
    "__pycache__",
}
"""Folders without library code: tests, the editor IDLE, bundled and installed packages."""


def standard_library() -> Source:
    """Returns the library's `.py` files in UTF-8, a file a document, in the order of their paths.

    A document's group is the package that holds it, or `modules`. Left out are tests, bundled
    packages, what the build of Python wrote (`_sysconfigdata*`, `config-*`), tables of character
    sets that a program wrote (`encodings/` files that say so), empty files, and
    `pydoc_data/topics.py`, which is the text of the corpus pydoc.

    Raises:
        UserError: for a Python without its source files.
    """
    found = _source_files(Path(sysconfig.get_path("stdlib")))
    texts = _cap(found, LARGEST)
    digest = hashlib.sha256()
    for name, data in texts.items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return Source(
        description="The source files of Python's standard library without its tests, one document "
        f"per file{_shown(texts, found)}.",
        version=f"Python {platform.python_version()}",
        fingerprint=digest.hexdigest()[:16],
        read=lambda: _documents(texts),
    )


def _source_files(root: Path) -> dict[str, bytes]:
    found = {}
    for folder, inner, files in os.walk(root):
        inner[:] = [n for n in inner if n not in _LEFT_OUT and not n.startswith("config-")]
        for path in (Path(folder, file) for file in files if file.endswith(".py")):
            name = path.relative_to(root).as_posix()
            built = path.name.startswith("_sysconfigdata") or path.is_symlink()
            if built or name == "pydoc_data/topics.py":
                continue
            data = path.read_bytes()
            generated = name.startswith("encodings/") and b"gencodec.py" in data[:200]
            if data and _is_utf8(data) and not generated:
                found[name] = data
    if len(found) < 3:
        raise UserError(f"corpus stdlib: {root} holds no source files of Python; install them")
    return dict(sorted(found.items()))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _cap(texts: dict[str, bytes], largest: int) -> dict[str, bytes]:
    """Returns the files that fit into `largest` bytes, taken by the hash of their text."""
    taken, size = set(), 0
    for name in sorted(texts, key=lambda name: hashlib.sha256(texts[name]).digest()):
        if size + len(texts[name]) <= largest:
            taken.add(name)
            size += len(texts[name])
    return {name: data for name, data in texts.items() if name in taken}


def _shown(texts: dict[str, bytes], found: dict[str, bytes]) -> str:
    """Returns what the cap left of the files that were found; nothing where it left all."""
    if len(texts) == len(found):
        return ""
    held, whole = (sum(map(len, each.values())) for each in (texts, found))
    return f" ({len(texts)} of {len(found)} files, {held:,} of {whole:,} bytes)"


def _documents(texts: dict[str, bytes]) -> Iterator[tuple[None, Document]]:
    for name, data in texts.items():
        package, slash, _ = name.partition("/")
        yield None, Document(name, data.decode(), package if slash else "modules")
