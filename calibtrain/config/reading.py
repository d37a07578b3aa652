"""From YAML and dotted overrides to validated sections, and back to YAML, hash and schema.

A value that does not fit ends in one `UserError` line that names the key, the value and what is
allowed.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import ValidationError

from calibtrain.config.section import Section
from calibtrain.config.sections import Config
from calibtrain.config.study import StudyConfig
from calibtrain.config.yaml_text import parse_yaml, read_tree
from calibtrain.errors import UserError

T = TypeVar("T", bound=Section)

EXCLUSIVE = ("budget", "context")
"""Sections that take exactly one of their keys."""

WAYS_TO_COMPUTE: Any = {
    "mesh": True,
    "train": True,
    "batch": {"accumulate"},
    "model": {"attention", "layers", "remat"},
    "corpus": {"group"},  # by what results are also given
}
"""What says how devices compute a run, not what it is: it may change when the run goes on."""

ADDED_LATER: dict[str, tuple[str, ...]] = {
    "": ("loss", "temperature", "finetune"),
    "model": ("head_size", "feed_forward_width", "qkv_bias", "embedding_scale", "rope_scaling"),
}
"""Keys, by section ("" for the top level), that are no part of a run's hash where they have their
default: it is then what it was before there were such keys, and runs made before go on."""


def set_path(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Set `a.b.c` in a nested tree, making sections on the way.

    A key of a section that takes exactly one of several (`budget.steps`) replaces the others.
    """
    *parents, last = dotted.split(".")
    node = tree
    for depth, name in enumerate(parents):
        child = node.setdefault(name, {})
        if not isinstance(child, dict):
            raise UserError(f"{'.'.join(parents[: depth + 1])}: is a value, not a section")
        node = child
    if parents and parents[-1] in EXCLUSIVE:
        node.clear()
    node[last] = value


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply `key.path=value` overrides, values read as YAML."""
    tree = json.loads(json.dumps(tree, default=str))
    for item in overrides:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            raise UserError(f"override {item!r}: write it as key.path=value")
        value = parse_yaml(text, f"override {key}")
        try:
            set_path(tree, key, value)
        except UserError as error:
            raise UserError(f"override {key}: {error}") from None
    return tree


def validate(cls: type[T], tree: Any, source: str = "", overrides: Iterable[str] = ()) -> T:
    """Validate a plain tree into a section.

    Args:
        cls: the section.
        tree: plain data.
        source: where it comes from; a message begins with it.
        overrides: those that were applied to it; what one of them brought in is blamed on it.

    Raises:
        UserError: one line for the first few mistakes, with the nearest right key for unknown ones.
    """
    try:
        text = json.dumps(tree, allow_nan=True, default=str)
        return cls.model_validate_json(text)
    except ValidationError as error:
        keys = [override.partition("=")[0].strip() for override in overrides]
        lines: list[str] = []
        blamed = ""
        for item in error.errors(include_url=False)[:3]:
            fields, path, kinds = _fields_along(cls, [str(part) for part in item["loc"]])
            line = _explain(fields, path, kinds, item)
            origin = _origin(path, source, keys)
            if origin != blamed:
                line, blamed = f"{origin}: {line}", origin
            if line not in lines:
                lines.append(line)
        raise UserError("; ".join(lines)) from None


def _origin(path: Sequence[str], source: str, keys: Sequence[str]) -> str:
    """What brought in a mistake: an override of the key, or the source with overrides beside it."""
    own = ".".join(path) + "."
    if above := [key for key in keys if own.startswith(f"{key}.")]:
        return f"override {above[-1]}"
    if inside := [key for key in keys if key.startswith(own)]:
        return f"{source} with override {', '.join(dict.fromkeys(inside))}"
    return source


def _explain(fields: Sequence[str], path: Sequence[str], kinds: Sequence[str], item: Any) -> str:
    key = ".".join(part or "''" for part in path)
    if item["type"] == "extra_forbidden":
        name = path[-1]
        near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
        prefix = ".".join(path[:-1])
        known = f"did you mean {'.'.join([*path[:-1], near[0]])}? " if near else ""
        where = prefix or "the top level"
        return f"{key}: unknown key; {known}allowed in {where}: {', '.join(fields)}"
    if item["type"].startswith("union_tag_"):
        return _explain_kind(key, kinds, item["input"])
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if item["type"] == "value_error":
        return f"{key}: {message}" if key else message
    if item["type"] == "missing":
        return f"{key}: is required"
    value = item.get("input")
    shown = json.dumps(value, default=str) if not isinstance(value, float) else repr(value)
    return f"{key}: {shown[:80]} is not allowed: {message}"


def _explain_kind(key: str, kinds: Sequence[str], section: Any) -> str:
    """What is wrong with the `kind` of a section that may be of several."""
    allowed = f"allowed: {', '.join(kinds)}"
    if "kind" not in section:
        return f"{key}: has no kind; {allowed}"
    kind = section["kind"]
    near = difflib.get_close_matches(str(kind), kinds, n=1, cutoff=0.5)
    known = f"did you mean {near[0]}? " if near else ""
    return f"{key}.kind: {str(kind)[:80]!r} is not allowed; {known}{allowed}"


def _fields_along(cls: Any, location: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Fields of the innermost section on the way, the location without union tags, and the kinds
    that what lies there may be of."""
    path: list[str] = []
    kinds: dict[str, Any] = {}
    fields = list(cls.model_fields)
    for part in location:
        if cls is not None and part in cls.model_fields:
            path.append(part)
            annotation = cls.model_fields[part].annotation
            kinds = _kinds(annotation)
            cls = (
                annotation
                if isinstance(annotation, type) and issubclass(annotation, Section)
                else None
            )
            if cls is not None:
                fields = list(cls.model_fields)
        elif cls is None and part in kinds:
            cls, kinds = kinds[part], {}
            fields = list(cls.model_fields)
        elif cls is not None or part.isdigit():
            path.append(part)
    return fields, path, list(kinds)


def _kinds(annotation: Any) -> dict[str, type[Section]]:
    """The sections of a union, or of a list of them, that are told apart by `kind`."""
    found: dict[str, type[Section]] = {}
    for member in get_args(annotation):
        if not (isinstance(member, type) and issubclass(member, Section)):
            found.update(_kinds(member))
        elif "kind" in member.model_fields:
            found[get_args(member.model_fields["kind"].annotation)[0]] = member
    return found


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a training configuration: YAML, then `key.path=value` overrides."""
    tree = read_tree(path)
    if "grid" in tree:
        raise UserError(f"{path}: is an ablation (it has a grid); run: calibtrain ablate {path}")
    overrides = list(overrides)
    return validate(Config, apply_overrides(tree, overrides), str(path), overrides)


def load_study(path: str | Path, overrides: Iterable[str] = ()) -> StudyConfig:
    """Read an ablation configuration, and check that every arm of its grid is valid."""
    tree = read_tree(path)
    if "grid" not in tree:
        raise UserError(f"{path}: has no grid, so it is no ablation; run: calibtrain train {path}")
    overrides = list(overrides)
    study = validate(StudyConfig, apply_overrides(tree, overrides), str(path), overrides)
    keys = [override.partition("=")[0].strip() for override in overrides]
    source = _origin(["grid"], f"{path}: grid", keys)
    for key, values in study.grid.items():
        for value in values:
            with_value(study.base, {key: value}, source)
    return study


def with_value(config: Config, changes: Mapping[str, Any], source: str = "") -> Config:
    """A copy of a configuration with dotted paths replaced, validated again."""
    tree = config.model_dump(mode="json", exclude_unset=True)
    for key, value in changes.items():
        try:
            set_path(tree, key, value)
        except UserError as error:
            raise UserError(f"{source}: {error}" if source else str(error)) from None
    return validate(Config, tree, source)


def to_yaml(section: Section) -> str:
    """The resolved section as YAML, in the order of its fields."""
    return yaml.safe_dump(section.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def config_hash(section: Section) -> str:
    """Hex SHA-256 (16 digits) of a section's canonical JSON.

    Of a run's, without what says how its devices compute.
    """
    left_out: Any = WAYS_TO_COMPUTE if isinstance(section, Config) else None
    tree = section.model_dump(mode="json", exclude=left_out)
    if isinstance(section, Config):
        tree["batch"]["accumulate"] = 1  # it counted once: hashes from then stay as they are
        for name, keys in ADDED_LATER.items():
            own, part = (getattr(section, name), tree[name]) if name else (section, tree)
            for key in keys:
                if getattr(own, key) == type(own).model_fields[key].default:
                    del part[key]
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def json_schema(cls: type[Section] = Config) -> dict[str, Any]:
    """JSON schema for editors, descriptions included."""
    return cls.model_json_schema()
