"""`Record`: one JSON object of a file, written and read through the same class.

Known keys are typed, unknown ones are kept, and the order of the keys is that of the file: what is
read and written again is the same JSON. What does not fit ends in one line that names file and key.
"""

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    PlainValidator,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from calibtrain.errors import UserError, shown
from calibtrain.storage.disk import write_whole
from calibtrain.storage.documents import read_document, sealed


def _kind(kinds: tuple[type, ...], wanted: str) -> PlainValidator:
    """A check that a value is of one of the types as it stands: nothing is converted."""

    def check(value: Any) -> Any:
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise PydanticCustomError("kind", "{wanted}", {"wanted": wanted})
        return value

    return PlainValidator(check)


Number = Annotated[float, _kind((int, float), "a number")]
Whole = Annotated[int, _kind((int,), "a whole number")]
Text = Annotated[str, _kind((str,), "a text")]
Flag = Annotated[bool, _kind((bool,), "true or false")]
NumberOrName = Annotated[float | str, _kind((int, float, str), "a number")]


class Record(BaseModel):
    """A JSON object; `in` and `get` ask for keys that are really there, known or not."""

    model_config = ConfigDict(extra="allow", frozen=True)

    _given: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="wrap")
    @classmethod
    def _remember_order(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        found = handler(data)
        if isinstance(data, Mapping):
            found._given = tuple(data)
        return found

    @model_serializer(mode="wrap")
    def _in_order(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found = handler(self)
        return {key: found[key] for key in self._given}

    def __contains__(self, key: object) -> bool:
        return key in self._given

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, `default` where the document does not hold it."""
        if key not in self._given:
            return default
        unknown = self.model_extra or {}  # which may be called as a method is
        return unknown[key] if key in unknown else getattr(self, key)

    @cached_property
    def numbers(self) -> dict[str, float]:
        """Every number of the object; texts, tables and nulls are left out."""
        return dict(self._find_numbers())

    def _find_numbers(self) -> Iterator[tuple[str, float]]:
        for key in self._given:
            value = self.get(key)
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                yield key, value

    def document(self) -> dict[str, Any]:
        """The object as plain data: exactly the keys that it was made with, in their order."""
        return self.model_dump()

    @classmethod
    def parse(cls, data: Any, source: str) -> Self:
        """The record of a JSON value.

        Args:
            data: the value.
            source: what an error names, such as a path.

        Raises:
            UserError: for what does not fit.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise UserError(f"{source}: is damaged ({_misfit(error)})") from None


class FileRecord(Record):
    """A document that is the whole of a file."""

    INDENT: ClassVar[int] = 1
    FINITE: ClassVar[bool] = True
    """Whether a number that is not finite may not be written."""
    REMEDY: ClassVar[str] = "run what wrote it again"
    """What a user can do about a file that is missing or damaged."""

    SEALED: ClassVar[bool] = False
    """Whether the file holds results, and ends in their checksum."""

    format: Whole
    _path: Path | None = PrivateAttr(None)

    @property
    def path(self) -> Path | None:
        """The file that it was read from; None for a record that was made."""
        return self._path

    @classmethod
    def read(cls, path: Path, remedy: str | None = None) -> Self:
        """Returns the record in a file.

        Args:
            path: of the file.
            remedy: what a user can do about one that is missing or damaged; default `REMEDY`.

        Raises:
            UserError: it is missing, damaged or of another format.
        """
        remedy = remedy or cls.REMEDY
        tree = read_document(path, remedy)
        try:
            found = cls.model_validate(tree)
        except ValidationError as error:
            message = f"{path}: is damaged ({_misfit(error)}); remove it, and {remedy}"
            raise UserError(message) from None
        found._path = path
        return found

    def text(self) -> str:
        """The file's text."""
        tree = sealed(self.document()) if self.SEALED else self.document()
        return json.dumps(tree, indent=self.INDENT, allow_nan=not self.FINITE) + "\n"

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            UserError: where the disk or bucket does not take it.
        """
        write_whole(path, self.text())


def require_number(document: Record, key: str) -> None:
    """Raise a pydantic error where a document lacks a number that others of its kind may lack."""
    if key not in document:
        raise PydanticCustomError("absent", "absent", {"key": key})
    if key not in document.numbers:
        about = {"key": key, "wanted": "a number", "value": document.get(key)}
        raise PydanticCustomError("kind", "{wanted}", about)


_WANTED: Mapping[str, str] = {
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "list_type": "a list",
}


def _misfit(error: ValidationError) -> str:
    """Returns the first thing that does not fit, in words: `arms.0.folder is missing`."""
    first = error.errors()[0]
    about: Mapping[str, Any] = first.get("ctx", {})
    place = [*first["loc"], *([about["key"]] if "key" in about else [])]
    if not place:
        return f"it is {shown(first['input'], 40)}, not an object"
    key = ".".join(map(str, place))
    if first["type"] in ("missing", "absent"):
        return f"{key} is missing"
    value = about.get("value", first["input"])
    wanted = about.get("wanted") or _WANTED.get(first["type"], first["msg"])
    return f"{key} is {shown(value, 40)}, not {wanted}"
