"""The user's own text files as documents: .txt, .jsonl, .jsonl.gz and .parquet.

Text is taken as it is, byte for byte: no newline is translated, no byte order mark removed. Text
that cannot be read exactly is an error of one line that names the file and the line, row or byte.
"""

import glob
import gzip
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from calibtrain.errors import SettingError, UserError
from calibtrain.process.phases import Phase
from calibtrain.storage.json_text import parse_json

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz", ".parquet")
_THREADS = 8  # that read and hash files
_BUFFER = 2**20  # bytes that are read ahead in a column of Parquet; otherwise it is read whole

Position = Callable[[int], None]
"""Is told how many bytes of a file are read."""


def find_files(patterns: Sequence[str], suffixes: tuple[str, ...] = SUFFIXES) -> list[Path]:
    """Returns the files that paths and globs name, sorted within a glob, each once.

    A path that exists is taken as it is, even if it looks like a glob.

    Raises:
        UserError: for a pattern that matches nothing, a folder, a pipe or device, or a suffix that
            is not among `suffixes`.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        expanded, shown = os.path.expanduser(pattern), _shorten(pattern)
        if os.path.isdir(expanded):
            raise UserError(
                f"{shown}: is a folder; name its files, for example {shown}/*{suffixes[0]}"
            )
        if "\0" not in expanded and os.path.lexists(expanded):
            matches = [expanded]
        else:
            matches = [path for path in _expand(expanded) if not os.path.isdir(path)]
            if not matches:
                raise _nothing(expanded, shown)
        for match in matches:
            if not match.lower().endswith(suffixes):
                raise UserError(
                    f"{_shorten(match)}: suffix not supported; allowed: {', '.join(suffixes)}"
                )
            _check_regular(match)
            found[Path(match)] = None
    return list(found)


def _expand(pattern: str) -> list[str]:
    usable = glob.has_magic(pattern) and "\0" not in pattern
    return sorted(glob.glob(pattern, recursive=True)) if usable else []


def _nothing(pattern: str, shown: str) -> UserError:
    """Returns the error for a pattern that matches no file."""
    here = f"(from {os.getcwd()})"
    if not glob.has_magic(pattern):
        return UserError(f"{shown}: no such file {here}")
    hint = ""
    if _expand(pattern):  # folders only
        hint = f"; it matches folders: name their files, for example {shown}/*.txt"
    elif "[" in pattern:
        literal = _shorten(pattern.replace("[", "[[]"))
        many = len(_expand(pattern.replace("[", "[[]")))
        hint = (
            "; brackets are a pattern, [12] is 1 or 2; where the name itself has brackets, write "
        )
        hint += f"{literal}" + (f", which matches {many}" if many else "")
    return UserError(f"{shown}: matches no file {here}{hint}")


def _check_regular(path: str) -> None:
    """Refuses pipes (reading would wait for a writer) and devices (which may have no end)."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        link = f" (it is a link to {os.readlink(path)})" if os.path.islink(path) else ""
        raise UserError(f"{path}: cannot be read: {error.strerror}{link}") from None
    if not stat.S_ISREG(mode):
        kinds = (
            (stat.S_ISFIFO, "a pipe"),
            (stat.S_ISSOCK, "a socket"),
            (stat.S_ISCHR, "a device"),
            (stat.S_ISBLK, "a device"),
        )
        kind = next((name for fits, name in kinds if fits(mode)), "not a file")
        raise UserError(f"{path}: is {kind}; only files are read; write its content into one")


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."


def file_names(paths: Sequence[Path]) -> list[str]:
    """Returns a name for each file that does not depend on where their common folder is."""
    absolute = [os.path.abspath(path) for path in paths]
    folder = os.path.commonpath([os.path.dirname(path) for path in absolute])
    names = [Path(os.path.relpath(path, folder)).as_posix() for path in absolute]
    return [name.encode("utf-8", "replace").decode("utf-8") for name in names]


def digest_files(paths: Sequence[Path], what: str = "reading the files' checksums") -> list[str]:
    """Returns the hex SHA-256 of each file's bytes, computed on several threads.

    Args:
        paths: the files.
        what: what the phase is called.

    Raises:
        UserError: for the first file that cannot be read.
    """
    phase, found = Phase(what, size_of(paths)), []
    with ThreadPoolExecutor(_THREADS) as pool:
        for digest, size in pool.map(_digest, paths):
            found.append(digest)
            phase.add(size)
    return found


def _digest(path: Path) -> tuple[str, int]:
    with readable(path), path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest(), handle.tell()


def size_of(paths: Sequence[Path]) -> int:
    """Returns the bytes of files together.

    Raises:
        UserError: for a file that cannot be read.
    """
    total = 0
    for path in paths:
        with readable(path):
            total += path.stat().st_size
    return total


def digest_set(names: Sequence[str], digests: Sequence[str]) -> str:
    """Returns the first 16 hex digits of the SHA-256 of the files' names and bytes."""
    digest = hashlib.sha256()
    for name, content in zip(names, digests, strict=True):
        digest.update(json.dumps([name, content]).encode())
    return digest.hexdigest()[:16]


def check_unchanged(paths: Sequence[Path], digests: Sequence[str]) -> None:
    """Checks that files did not change while they were read.

    Raises:
        UserError: for the first file that changed.
    """
    found = digest_files(paths, "comparing the files with their checksums")
    for path, before, now in zip(paths, digests, found, strict=True):
        if before != now:
            raise UserError(
                f"{path}: changed while it was read; run this again once nothing writes to it"
            )


def read_files(
    paths: Sequence[Path], names: Sequence[str], field: str, group: str | None = None
) -> Iterator[tuple[str, str, str]]:
    """Yields the identifier, text and group of every document of the files, in order.

    A .txt file is one document, identified by its name. Each line of .jsonl(.gz) and each row of
    .parquet is one, identified by its `id` if that is a string or an integer, or by its number.
    With several files, the file's name stands before it. Its group is the value of the field
    `group`: a string, a number or a boolean. Without `group`, and for .txt, the group is "".

    Raises:
        UserError: for a document that cannot be read exactly; it names the place.
    """
    phase, before = Phase("reading the corpus", size_of(paths)), 0

    def read(position: int) -> None:
        phase.at(before + position)

    for path, name in zip(paths, names, strict=True):
        prefix = f"{name}:" if len(paths) > 1 else ""
        with readable(path):
            match Path(name.lower().removesuffix(".gz")).suffix:
                case ".txt":
                    yield name, _decode(path.read_bytes(), str(path)), ""
                case ".jsonl":
                    for number, place, record in json_lines(path, read):
                        identifier, text, member = _record(record, field, group, number, place)
                        yield prefix + identifier, text, member
                case ".parquet":
                    for identifier, text, member in _read_rows(path, field, group, read):
                        yield prefix + identifier, text, member
            before += path.stat().st_size
            read(0)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turns an error of reading a file into one line."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: is not a whole gzip file: {error}") from None
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read: {reason.splitlines()[0]}") from None


def _decode(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{place}: not valid UTF-8 at byte {error.start} (0x{data[error.start]:02x}); "
            "convert it to UTF-8 first"
        ) from None


def json_lines(
    path: Path, position: Position = lambda read: None
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yields the number, the place in words, and the object of every non-empty line of a file.

    Args:
        path: a file of JSON lines, compressed if its name ends in .gz.
        position: is told how many bytes of the file are read.

    Raises:
        UserError: for a file that cannot be read, or a line that is not a JSON object.
    """
    zipped = path.name.lower().endswith(".gz")
    with readable(path), path.open("rb") as file, gzip.open(file) if zipped else file as handle:
        if zipped and not path.stat().st_size:  # gzip would read it as empty text
            raise EOFError("it is empty")
        for number, line in enumerate(handle, start=1):
            place = f"{path}, line {number}"
            if not line.strip():
                continue
            source = _decode(line, place)
            if number == 1:
                source = source.removeprefix("\ufeff")  # the byte order mark, before the first {
            try:
                record = parse_json(source)
            except ValueError as error:
                raise UserError(f"{place}: not valid JSON: {error}") from None
            if not isinstance(record, dict):
                raise UserError(f"{place}: must be a JSON object, not {_kind(record)}")
            position(file.tell())
            yield number, place, record


def _read_rows(
    path: Path, field: str, group: str | None, position: Position
) -> Iterator[tuple[str, str, str]]:
    import pyarrow
    from pyarrow import parquet, types

    number = 0
    try:
        options = {"page_checksum_verification": True, "buffer_size": _BUFFER}
        with parquet.ParquetFile(path, **options) as file:
            rows, size = max(1, file.metadata.num_rows), path.stat().st_size
            columns = file.schema_arrow.names
            if field not in columns:
                raise _missing("field", field, columns, str(path))
            kinds = [column.type for column in file.schema_arrow if column.name == "id"]
            wanted = {name for name in columns if name in (field, group)}
            if kinds and not types.is_temporal(kinds[0]):  # a time does not identify a document
                wanted.add("id")
            for name in sorted(wanted):
                if columns.count(name) > 1:
                    raise UserError(
                        f"{path}: has {columns.count(name)} columns called {name!r}, as a join "
                        "writes them; rename all but one"
                    )
            for batch in file.iter_batches(batch_size=256, columns=sorted(wanted)):
                position(size * number // rows)
                for row in range(batch.num_rows):
                    number += 1
                    place = f"{path}, row {number}"
                    record = {
                        name: _cell(batch.column(name)[row], name, place)
                        for name in batch.schema.names
                    }
                    yield _record(record, field, group, number, place)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, row {number}: not valid UTF-8 at byte {error.start}") from None
    except pyarrow.ArrowException as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: is not a readable parquet file: {first}") from None


def _cell(value: Any, name: str, place: str) -> Any:
    try:
        return value.as_py()
    except (OverflowError, ValueError, KeyError, ImportError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        raise UserError(f"{place}: field {name!r} cannot be read: {error}") from None


def _record(
    record: dict[str, Any], field: str, group: str | None, number: int, place: str
) -> tuple[str, str, str]:
    if field not in record:
        raise _missing("field", field, list(record), place)
    member = _group(record, group, place)
    text, identifier = record[field], record.get("id")
    if not isinstance(text, str):
        raise UserError(f"{place}: field {field!r} must be a string, not {_kind(text)}")
    if isinstance(identifier, bool) or not isinstance(identifier, (str, int)):
        identifier = number
    identifier = str(identifier)
    for name, value in ((field, text), ("id", identifier), (group or "group", member)):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UserError(
                f"{place}: field {name!r} has a lone surrogate (U+{ord(value[error.start]):04X}) "
                f"at character {error.start}, which UTF-8 cannot hold"
            ) from None
    return identifier, text, member


def _group(record: dict[str, Any], group: str | None, place: str) -> str:
    if group is None:
        return ""
    if group not in record:
        raise _missing("group", group, list(record), place)
    value = record[group]
    if not isinstance(value, (str, int, float)):
        raise UserError(
            f"{place}: field {group!r} must be a string or a number, not {_kind(value)}"
        )
    return str(value)


def _missing(key: str, field: str, there: Sequence[str], place: str) -> SettingError:
    names = ", ".join(there) or "none"
    return SettingError(
        f"{place}: has no field {field!r}; fields there: {names} (set ", f"corpus.{key}", ")"
    )


def _kind(value: Any) -> str:
    names = {
        "dict": "an object",
        "list": "a list",
        "bool": "a boolean",
        "int": "a number",
        "float": "a number",
        "NoneType": "null",
    }
    return names.get(type(value).__name__, type(value).__name__)
