"""YAML as configurations are written in it: 1e-3 is a number, a key given twice is a mistake."""

import re
from pathlib import Path
from typing import Any

import yaml

from calibtrain.errors import UserError
from calibtrain.storage.places import place


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 and 2e6 as numbers, and wants every key to be a text, once."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Check the keys as they are written, before merge keys (<<) are resolved."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            place = f"line {key.start_mark.line + 1}"
            if key.tag != "tag:yaml.org,2002:str":
                shown = f"key {key.value}" if isinstance(key, yaml.ScalarNode) else "a key"
                raise UserError(f"{place}: {shown} is not a text; write it in quotes")
            if key.value in seen:
                raise UserError(f"{place}: key {key.value!r} is given twice")
            seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "!exponent",
    re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)
# PyYAML asks resolvers in order and its own would claim 1.5e+3 first.
for _first in "-+.0123456789":
    _Loader.yaml_implicit_resolvers[_first].sort(key=lambda pair: pair[0] != "!exponent")


def _exponent(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    value = float(str(node.value).replace("_", ""))
    return int(value) if value.is_integer() and abs(value) <= 1e18 else value


_Loader.add_constructor("!exponent", _exponent)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node, deep=True)


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


# Made whole at once, not in two steps as PyYAML does: a node that holds itself is then an error.
_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _sequence)


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML; a syntax error becomes one line that names the source and the place."""
    try:
        return yaml.load(text, Loader=_Loader)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except RecursionError:
        raise UserError(f"{source}: not valid YAML: nested too deeply") from None
    except (yaml.YAMLError, TypeError, ValueError, LookupError, AttributeError) as error:
        # the last four: values that PyYAML recognises but cannot build, such as 2001-99-99
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{source}{place}: not valid YAML: {problem}") from None


def read_tree(path: str | Path) -> dict[str, Any]:
    """Read a YAML file into a plain tree."""
    path = place(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    tree = parse_yaml(text, str(path))
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must hold keys and values, not a {type(tree).__name__}")
    return tree
