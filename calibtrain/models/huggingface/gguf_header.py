"""Checks the header of a GGUF file before it is parsed: every length lies within the file.

The gguf package trusts counts and lengths; a damaged one makes it run for hours, or misread the
file.

References:
    GGUF: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import mmap
import os
import struct
from pathlib import Path

_VERSIONS = (2, 3)
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value by its type; the other types are strings and arrays."""
_STRING, _ARRAY = 8, 9
_MOST_AXES = 4


def check_header(path: Path) -> None:
    """Checks a file's metadata and list of tensors.

    Raises:
        ValueError: where something is wrong; the message is one line.
        OSError: when the file cannot be read.
    """
    with path.open("rb") as handle:
        size = os.fstat(handle.fileno()).st_size
        if size < 24:
            raise ValueError(f"{size} bytes")
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _Walk(content).header()


class _Walk:
    """A position in the file that moves forward."""

    def __init__(self, content: mmap.mmap):
        self.content, self.at, self.order = content, 4, "<"

    def header(self) -> None:
        version = self.number("I")
        if version & 0xFFFF == 0:  # written with the other byte order
            self.at, self.order = 4, ">"
            version = self.number("I")
        if version not in _VERSIONS:
            raise ValueError(f"version {version} is not known; allowed: 2, 3")
        tensors, values = self.number("Q"), self.number("Q")
        for _ in range(values):
            self.text()
            self.value(self.number("I"))
        for _ in range(tensors):
            self.text()
            axes = self.number("I")
            if axes > _MOST_AXES:
                raise ValueError(f"a tensor of {axes:,} axes")
            self.skip(8 * axes + 4 + 8)

    def value(self, kind: int) -> None:
        if kind == _STRING:
            self.text()
        elif kind == _ARRAY:
            inside, count = self.number("I"), self.number("Q")
            if inside == _STRING:
                for _ in range(count):
                    self.text()
            else:
                self.skip(self.size(inside) * count)
        else:
            self.skip(self.size(kind))

    def size(self, kind: int) -> int:
        if kind not in _SIZES:
            raise ValueError(f"a value of type {kind}")
        return _SIZES[kind]

    def text(self) -> None:
        self.skip(self.number("Q"))

    def number(self, form: str) -> int:
        size = struct.calcsize(form)
        start = self.at
        self.skip(size)
        (found,) = struct.unpack(self.order + form, self.content[start : self.at])
        return int(found)

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > len(self.content):
            raise ValueError(f"byte {self.at:,} of {len(self.content):,} is needed")
