"""Messages for mistakes in a configuration: key, value, what is allowed, the nearest right key."""

import difflib
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, get_args, get_origin

from calibtrain.config.section import Section
from calibtrain.errors import printable, quoted, shown


def explain(cls: type[Section], item: Mapping[str, Any]) -> tuple[list[str], str]:
    """Returns the keys that lead to an error of pydantic, and a line about it."""
    fields, path, kinds = _fields_along(cls, [str(part) for part in item["loc"]])
    return path, _explain(fields, path, kinds, item)


def not_text(tree: Any, key: str = "") -> str | None:
    """Returns what is wrong with the first text in plain data that is not valid Unicode, or None.

    Arguments and file names hold lone surrogates in place of bytes that are not UTF-8.
    """
    if isinstance(tree, str):
        try:
            tree.encode()
        except UnicodeEncodeError:
            return f"{key or 'a key'}: {shown(tree)} is not UTF-8; use letters that are"
        return None
    parts: list[tuple[str, Any]] = []
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            own = f"{key}.{name}".removeprefix(".")
            parts += [(own, name), (own, value)]
    elif isinstance(tree, (list, tuple)):
        parts = [(f"{key}.{index}", value) for index, value in enumerate(tree)]
    return next((said for own, part in parts if (said := not_text(part, own))), None)


def with_nulls(cls: Any, tree: Any) -> Any:
    """Returns plain data with null in place of `none`, where a key allows null but not a text.

    Where a text is allowed, `none` stays a text. A section with a kind `none` may be given as the
    word `none`.
    """
    if not isinstance(tree, Mapping) or not _is_section(cls):
        return tree
    found = {}
    for name, value in tree.items():
        field = cls.model_fields.get(name)
        found[name] = value if field is None else _with_nulls(field.annotation, value)
    return found


def _with_nulls(annotation: Any, value: Any) -> Any:
    allowed = _alternatives(annotation)
    if isinstance(value, str):
        if value.lower() != "none" or str in allowed:
            return value
        if NoneType in allowed:
            return None
        kind = _kinds(annotation).get("none") or _section_of(annotation)
        named = None if kind is None else kind.model_fields.get("kind")
        is_kind = named is not None and "none" in get_args(named.annotation)
        return {"kind": "none"} if is_kind else value
    if isinstance(value, Mapping):
        kinds = _kinds(annotation)
        return with_nulls(kinds.get(str(value.get("kind"))) or _section_of(annotation), value)
    if isinstance(value, list) and get_origin(annotation) is tuple:
        return [_with_nulls(get_args(annotation)[0], part) for part in value]
    return value


def _alternatives(annotation: Any) -> list[Any]:
    """Returns the types that an annotation allows: the members of unions, without constraints."""
    if get_origin(annotation) is tuple or not get_args(annotation):
        return [annotation]
    if hasattr(annotation, "__metadata__"):
        return _alternatives(get_args(annotation)[0])
    return [each for part in get_args(annotation) for each in _alternatives(part)]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _section_of(annotation: Any) -> type[Section] | None:
    """Returns the section class of a key, which may also allow null; None for several or none."""
    sections = [each for each in _alternatives(annotation) if _is_section(each)]
    return sections[0] if len(sections) == 1 else None


def _explain(
    fields: Sequence[str], path: Sequence[str], kinds: Sequence[str], item: Mapping[str, Any]
) -> str:
    key = printable(".".join(part or "''" for part in path))[:200]
    if item["type"] == "extra_forbidden":
        name = path[-1]
        near = difflib.get_close_matches(name[:100], fields, n=1, cutoff=0.5)
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
    return f"{key}: {shown(item.get('input'))} is not allowed: {message}{_hint(item)}"


def _hint(item: Mapping[str, Any]) -> str:
    """Returns how to write what was probably meant, for words that YAML 1.1 reads differently."""
    value = item.get("input")
    if item["type"] == "bool_type" and isinstance(value, str):
        return "; write true or false"
    if item["type"] in ("int_type", "float_type") and isinstance(value, str):
        return "; write it in decimal digits, without quotes"
    if item["type"] in ("model_type", "model_attributes_type"):
        return ", that is keys and values, as {key: value}"
    return ""


def _explain_kind(key: str, kinds: Sequence[str], section: Any) -> str:
    """Returns what is wrong with the `kind` of a section that has several kinds."""
    allowed = f"allowed: {', '.join(kinds)}"
    if "kind" not in section:
        return f"{key}: has no kind; {allowed}"
    kind = section["kind"]
    near = difflib.get_close_matches(str(kind)[:100], kinds, n=1, cutoff=0.5)
    known = f"did you mean {near[0]}? " if near else ""
    return f"{key}.kind: {quoted(str(kind))} is not allowed; {known}{allowed}"


def _fields_along(cls: Any, location: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Returns the fields of the innermost section on the way, the location without union tags, and
    the kinds allowed there."""
    path: list[str] = []
    kinds: dict[str, Any] = {}
    fields = list(cls.model_fields)
    named = False  # whether the next part is a key of a mapping that is not a section
    for part in location:
        if cls is not None and part in cls.model_fields:
            path.append(part)
            annotation = cls.model_fields[part].annotation
            kinds = _kinds(annotation)
            named = get_origin(annotation) is dict
            cls = None if kinds else _section_of(annotation)
            if cls is not None:
                fields = list(cls.model_fields)
        elif cls is None and part in kinds:
            cls, kinds = kinds[part], {}
            fields = list(cls.model_fields)
        elif cls is not None or part.isdigit() or named:
            path.append(part)
            named = False
    return fields, path, list(kinds)


def _kinds(annotation: Any) -> dict[str, type[Section]]:
    """Returns by `kind` the sections of a union, or of a list of unions."""
    found: dict[str, type[Section]] = {}
    for member in get_args(annotation):
        if not _is_section(member):
            found.update(_kinds(member))
        elif "kind" in member.model_fields:
            found[get_args(member.model_fields["kind"].annotation)[0]] = member
    return found
