"""Reading and writing of YAML: 1e-3 is a number, 010 is ten, and a key may come only once.

Plain words are read by the core schema of YAML 1.2, not by PyYAML's rules of 1.1, in which 010 is
eight, 1:30 is ninety and `no` is false. Two forms are allowed besides, because configurations use
them: 1_000_000, and 2e6 as a whole number.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from calibtrain.errors import UserError, quoted, shown
from calibtrain.storage.json_text import MOST_DIGITS
from calibtrain.storage.places import place, reached

MOST_BYTES = 2**20
"""Bytes that a configuration file may have; the largest known has a few thousand."""
MOST_VALUES = 20_000
"""Values that a configuration may have, each counted as often as an alias (*name) repeats it."""
MOST_LEVELS = 50
"""Levels that sections and lists may be nested."""

_TAG = "tag:yaml.org,2002:"
_DIGITS = "[0-9]+(?:_[0-9]+)*"
_WORDS: dict[str, tuple[str, str]] = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (rf"[-+]?{_DIGITS}|[-+]?0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        rf"[-+]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "merge": (r"<<", "<"),
}
"""Unquoted words that are not texts: their pattern, and the letters that they may begin with."""


class _Loader(yaml.SafeLoader):
    """Reads words as described above; requires every key to be a text that comes once; and bounds
    size and depth."""

    yaml_implicit_resolvers: ClassVar[Any] = {}  # type: ignore[misc]
    yaml_constructors: ClassVar[Any] = {}

    def __init__(self, text: str):
        super().__init__(text)
        self._levels = 0
        self._read = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuses a document that is too deep or too large while it is read."""
        self._levels += 1
        self._read += 1
        if self._levels > MOST_LEVELS:
            raise UserError(
                f"line {self.line + 1}: nested too deeply (at most {MOST_LEVELS} levels are "
                "allowed)"
            )
        if self._read > MOST_VALUES:
            raise _too_many()
        node = super().compose_node(parent, index)
        self._levels -= 1
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        """Refuses numbers with too many digits."""
        node = super().compose_scalar_node(anchor)
        if node.tag in (f"{_TAG}int", f"{_TAG}float") and len(node.value) > MOST_DIGITS:
            raise UserError(
                f"line {node.start_mark.line + 1}: a number of {len(node.value):,} digits; at most "
                f"{MOST_DIGITS} are allowed"
            )
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Checks the keys as they are written, before merge keys (<<) are resolved."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag == f"{_TAG}merge":
                continue
            where = f"line {key.start_mark.line + 1}"
            if key.tag != f"{_TAG}str":
                what = (
                    f"key {quoted(key.value)[1:-1]}"
                    if isinstance(key, yaml.ScalarNode)
                    else "a key"
                )
                raise UserError(f"{where}: {what} is not a text; write it in quotes")
            if key.value in seen:
                raise UserError(f"{where}: key {quoted(key.value)} is given twice")
            seen.add(key.value)
        return node

    def get_single_node(self) -> Any:
        """Refuses a document that aliases make too large, before anything is repeated."""
        node = super().get_single_node()
        if node is not None and _values(node, {}) > MOST_VALUES:
            raise _too_many()
        return node


for _name, (_form, _first) in _WORDS.items():
    # PyYAML looks up an empty text under the letter ""
    _letters = [*_first, ""] if _name == "null" else list(_first)
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_form})$"), _letters)


def _too_many() -> UserError:
    return UserError(
        f"holds more than {MOST_VALUES:,} values (an alias, *name, counts as all that it stands "
        "for); write fewer"
    )


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Returns how many values a node stands for, counting an alias as often as it is used."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = 1  # a node that contains itself is refused when it is built
    pairs = isinstance(node, yaml.MappingNode)
    parts = [part for pair in node.value for part in pair] if pairs else node.value
    known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    return known[id(node)]


def _scalar(loader: _Loader, node: yaml.ScalarNode) -> Any:
    """Returns a word as the type of its tag; `!!int yes` is a mistake."""
    name = node.tag.removeprefix(_TAG)
    if name != "str" and not re.match(rf"^(?:{_WORDS[name][0]})$", str(node.value)):
        raise ValueError(f"{shown(node.value)} is not of type {name}")
    match name:
        case "null":
            return None
        case "bool":
            return node.value.lower() == "true"
        case "int":
            return _integer(node.value)
        case "float":
            return _number(node.value)
    return _text(node.value)


def _integer(text: str) -> int:
    return int(text, 16 if "0x" in text else 10)


def _number(text: str) -> int | float:
    """Returns a float, or an integer for a text such as 2e6."""
    if text.lstrip("+-")[1:].lower() in ("inf", "nan"):
        return float(text.replace(".", ""))
    value = float(text)
    whole = "e" in text.lower() and value.is_integer() and abs(value) <= 1e18
    return int(value) if whole else value


def _text(text: str) -> str:
    """Returns a text in which two escapes of one character, as JSON writes them, are joined."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise ValueError(
            f"{shown(text)} holds half a character (a lone surrogate, U+D800 to U+DFFF)"
        ) from None


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


def _unknown(loader: _Loader, node: yaml.Node) -> Any:
    raise ValueError(f"tag {shown(node.tag.replace(_TAG, '!!'))} is not allowed; remove it")


for _name in ("null", "bool", "int", "float", "str"):
    _Loader.add_constructor(f"{_TAG}{_name}", _scalar)
# Built in one step, not in two as PyYAML does, so that a node that contains itself is an error.
_Loader.add_constructor(f"{_TAG}map", _mapping)
_Loader.add_constructor(f"{_TAG}seq", _sequence)
_Loader.add_constructor(None, _unknown)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that PyYAML or our loader would read as something else."""


for _name, (_form, _first) in _WORDS.items():
    _Dumper.add_implicit_resolver(f"{_TAG}{_name}", re.compile(rf"^(?:{_form})$"), list(_first))


def write_yaml(tree: Any, *, ascii_only: bool = False) -> str:
    """Returns plain data as YAML in its own order; `parse_yaml` reads it back unchanged."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=not ascii_only)


def parse_yaml(text: str, source: str) -> Any:
    """Parses YAML; a syntax error becomes one line that names the source and the place."""
    try:
        return yaml.load(text, Loader=_Loader)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except RecursionError:
        raise UserError(f"{source}: not valid YAML: nested too deeply") from None
    except (yaml.YAMLError, TypeError, ValueError, LookupError, ArithmeticError) as error:
        # the last four come from what PyYAML reads but cannot build, such as "\\UFFFFFFFF"
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        if isinstance(error, ArithmeticError):
            problem = "an escape stands for no character"
        raise UserError(f"{source}{where}: not valid YAML: {problem}") from None


def read_tree(path: str | Path) -> dict[str, Any]:
    """Reads a YAML file into a plain tree.

    Raises:
        UserError: where it cannot be read, is too large, or is not valid YAML.
    """
    return to_tree(read_text(path), str(path))


def read_text(path: str | Path) -> str:
    """Reads the text of a YAML file.

    Raises:
        UserError: where it cannot be read, or is larger than `MOST_BYTES`.
    """
    path = place(path)
    try:
        with reached(path), path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8") if len(data) <= MOST_BYTES else ""
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if len(data) > MOST_BYTES:
        raise UserError(
            f"{path}: is larger than {MOST_BYTES:,} bytes, the most a configuration may have"
        )
    return text


def to_tree(text: str, source: str) -> dict[str, Any]:
    """Parses YAML that holds keys and values; an empty text gives an empty tree."""
    tree = parse_yaml(text, source)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise UserError(f"{source}: must hold keys and values, not a {type(tree).__name__}")
    return tree
