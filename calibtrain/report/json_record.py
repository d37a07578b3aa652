"""One JSON object of a file, read key by key; what does not fit ends in one clear line."""

from pathlib import Path
from typing import Any

from calibtrain.errors import UserError
from calibtrain.storage.documents import read_document


class Record:
    """One JSON object of a file; what does not fit names the file and the key."""

    def __init__(self, source: str, data: Any) -> None:
        if not isinstance(data, dict):
            raise UserError(f"{source} is damaged: an object was expected, not {kind_of(data)}")
        self.source = source
        self.data: dict[str, Any] = data

    def _get(self, key: str, kinds: tuple[type, ...], wanted: str) -> Any:
        if key not in self.data:
            raise UserError(f"{self.source} is damaged: key {key!r} is missing")
        value = self.data[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise UserError(f"{self.source} is damaged: {key!r} is {kind_of(value)}, not {wanted}")
        return value

    def number(self, key: str) -> float:
        return self._get(key, (int, float), "a number")

    def whole(self, key: str) -> int:
        return self._get(key, (int,), "a whole number")

    def text(self, key: str) -> str:
        return self._get(key, (str,), "a text")

    def flag(self, key: str) -> bool:
        return self._get(key, (bool,), "true or false")

    def mapping(self, key: str) -> dict[str, Any]:
        return self._get(key, (dict,), "an object")

    def record(self, key: str) -> "Record":
        return Record(f"{self.source} ({key})", self.mapping(key))

    def records(self, key: str) -> list["Record"]:
        items = self._get(key, (list,), "a list")
        return [Record(f"{self.source} ({key} {i})", item) for i, item in enumerate(items, 1)]

    def maybe_record(self, key: str) -> "Record":
        """The object under `key`, an empty one where there is none."""
        empty = self.data.get(key) is None
        return Record(f"{self.source} ({key})", {}) if empty else self.record(key)

    def maybe_records(self, key: str) -> list["Record"]:
        """The objects of the list under `key`; none where there is no list."""
        return [] if self.data.get(key) is None else self.records(key)

    def maybe_number(self, key: str) -> float | None:
        return None if self.data.get(key) is None else self.number(key)

    def maybe_whole(self, key: str) -> int | None:
        return None if self.data.get(key) is None else self.whole(key)

    def maybe_text(self, key: str) -> str | None:
        return None if self.data.get(key) is None else self.text(key)

    def numbers(self) -> dict[str, float]:
        """Every number of the object; texts, tables and nulls are left out."""
        return {
            key: value
            for key, value in self.data.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }


def kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a flag", type(None): "null"}
    return names.get(type(value), "a number")


def contents(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it is missing or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def document(path: Path) -> Record:
    """The JSON object that a file holds.

    Raises:
        UserError: it is missing, damaged or has another format.
    """
    return Record(str(path), read_document(path, "run the command that wrote it again"))
