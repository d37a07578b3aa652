"""What does not fit a section, in words: key, value, what is allowed, the nearest right key."""

import difflib
from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Any, get_args, get_origin

from calibtrain.config.section import Section
from calibtrain.errors import printable, quoted, shown


def explain(cls: type[Section], item: Mapping[str, Any]) -> tuple[list[str], str]:
    """The keys that lead to one of pydantic's errors, and a line about it."""
    fields, path, kinds = _fields_along(cls, [str(part) for part in item["loc"]])
    return path, _explain(fields, path, kinds, item)


def not_text(tree: Any, key: str = "") -> str | None:
    """What is wrong with the first text in plain data that has no UTF-8 bytes, if there is one.

    Arguments and names of files hold such letters (lone surrogates) for bytes that are not UTF-8.
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
    """Plain data with `none` as null, where a key allows null and no text.

    The two words mean the same to a reader; where a text is allowed, `none` is that text. A section
    that has a kind `none` may be called so by that word alone.
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
    """The types that an annotation allows: members of unions, without their constraints."""
    if get_origin(annotation) is tuple or not get_args(annotation):
        return [annotation]
    if hasattr(annotation, "__metadata__"):
        return _alternatives(get_args(annotation)[0])
    return [each for part in get_args(annotation) for each in _alternatives(part)]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Section)


def _section_of(annotation: Any) -> type[Section] | None:
    """The section that lies under a key, if it is of one kind; it may be one that can be null."""
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
    """How to write what was probably meant: words that older versions of YAML read otherwise."""
    value = item.get("input")
    if item["type"] == "bool_type" and isinstance(value, str):
        return "; write true or false"
    if item["type"] in ("int_type", "float_type") and isinstance(value, str):
        return "; write it in decimal digits, without quotes"
    if item["type"] in ("model_type", "model_attributes_type"):
        return ", that is keys and values, as {key: value}"
    return ""


def _explain_kind(key: str, kinds: Sequence[str], section: Any) -> str:
    """What is wrong with the `kind` of a section that may be of several."""
    allowed = f"allowed: {', '.join(kinds)}"
    if "kind" not in section:
        return f"{key}: has no kind; {allowed}"
    kind = section["kind"]
    near = difflib.get_close_matches(str(kind)[:100], kinds, n=1, cutoff=0.5)
    known = f"did you mean {near[0]}? " if near else ""
    return f"{key}.kind: {quoted(str(kind))} is not allowed; {known}{allowed}"


def _fields_along(cls: Any, location: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Fields of the innermost section on the way, the location without union tags, and the kinds
    that what lies there may be of."""
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
    """The sections of a union, or of a list of them, that are told apart by `kind`."""
    found: dict[str, type[Section]] = {}
    for member in get_args(annotation):
        if not _is_section(member):
            found.update(_kinds(member))
        elif "kind" in member.model_fields:
            found[get_args(member.model_fields["kind"].annotation)[0]] = member
    return found
