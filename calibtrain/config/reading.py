"""Reads YAML and dotted overrides into validated sections; writes YAML, hash and schema.

A value that does not fit raises a `UserError` of one line that names the key, the value and what is
allowed.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from calibtrain.config.mistakes import explain, not_text, with_nulls
from calibtrain.config.overridden import refusal, refuse_overridden
from calibtrain.config.section import Section
from calibtrain.config.sections import Config
from calibtrain.config.study import StudyConfig
from calibtrain.config.yaml_text import parse_yaml, read_text, to_tree, write_yaml
from calibtrain.errors import UserError, cut, quoted
from calibtrain.storage.places import place, reached

T = TypeVar("T", bound=Section)

RESOLVED = "# Resolved by calibtrain, to be read by it: every default is written out."
"""First line of a file that a study or a launcher made. Settings without effect were checked when
the user gave them; they stay in the file, because a run's hash counts them."""

EXCLUSIVE = ("budget", "context")
"""Sections that take exactly one of their keys."""

WAYS_TO_COMPUTE: Any = {
    "mesh": True,
    "train": True,
    "batch": {"accumulate"},
    "checkpoints": {"minutes"},
    "model": {"attention", "layers", "remat"},
    "corpus": {"group"},  # affects only how results are grouped
    "trackers": True,
    "evaluation": {"events", "event_bytes"},  # what is measured once it is trained
}
"""Settings of how a run is computed and what is measured of it at its end, not of what it is: they
may change when a run goes on."""

ADDED_LATER: dict[str, tuple[str, ...]] = {
    "": ("loss", "temperature", "finetune"),
    "corpus": ("sample_bytes",),
    "tokenizer": ("cut_from", "sample_bytes", "sample_seed"),
    "finetune": ("choices", "template"),
    "model": ("head_size", "feed_forward_width", "qkv_bias", "embedding_scale", "rope_scaling"),
}
"""Keys by section ("" for the top level) that a run's hash leaves out where they have their
default, so that the hash is what it was before these keys existed, and older runs can go on."""


def set_path(tree: dict[str, Any], dotted: str, value: Any) -> None:
    """Sets `a.b.c` in a nested tree, and makes the sections on the way.

    A key of a section that takes exactly one of several (`budget.steps`) replaces the others.
    """
    *parents, last = dotted.split(".")
    node = tree
    for depth, name in enumerate(parents):
        child = node[name] = {} if node.get(name) is None else node[name]
        if not isinstance(child, dict):
            raise UserError(f"{'.'.join(parents[: depth + 1])}: is a value, not a section")
        node = child
    if parents and parents[-1] in EXCLUSIVE:
        node.clear()
    node[last] = value


def replaced_by(key: str, before: Iterable[str]) -> str | None:
    """Returns the first dotted path in `before` whose value is lost when `key` is set, or None."""
    section, _, _ = key.rpartition(".")
    for other in before:
        same = other == key or other.startswith(f"{key}.")
        one_of = section.rpartition(".")[2] in EXCLUSIVE
        if same or (one_of and (other == section or other.startswith(f"{section}."))):
            return other
    return None


def apply_overrides(tree: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Applies `key.path=value` overrides, whose values are read as YAML.

    Raises:
        UserError: for a text that is not an override, and for two overrides that conflict.
    """
    tree = json.loads(json.dumps(tree, default=str))
    before: list[str] = []
    for item in overrides:
        key, equals, text = item.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            raise UserError(f"override {quoted(item)}: write it as key.path=value")
        if undone := replaced_by(key, before):
            said = "is given twice" if undone == key else f"replaces {undone}, given before it"
            raise UserError(f"override {cut(key)}: {said}; leave one of the two out")
        before.append(key)
        value = parse_yaml(text, f"override {cut(key)}")
        try:
            set_path(tree, key, value)
        except UserError as error:
            raise UserError(f"override {cut(key)}: {error}") from None
    return tree


def validate(cls: type[T], tree: Any, source: str = "", overrides: Iterable[str] = ()) -> T:
    """Validates a plain tree and returns it as a section.

    Args:
        cls: class of the section.
        tree: plain data.
        source: where the tree comes from; a message begins with it.
        overrides: overrides that were applied to it; a message about their keys names them.

    Raises:
        UserError: in one line for the first few mistakes; for an unknown key, it names the nearest.
    """
    if wrong := not_text(tree):
        raise UserError(f"{source}: {wrong}" if source else wrong)
    try:
        text = json.dumps(with_nulls(cls, tree), allow_nan=True, default=str)
        return cls.model_validate_json(text)
    except ValidationError as error:
        keys = _keys(overrides)
        lines: list[str] = []
        blamed = ""
        for item in error.errors(include_url=False)[:3]:
            path, line = explain(cls, item)
            origin = _origin(path, source, keys)
            if origin != blamed:
                line, blamed = f"{origin}: {line}", origin
            if line not in lines:
                lines.append(line)
        raise UserError("; ".join(lines)) from None


def _origin(path: Sequence[str], source: str, keys: Sequence[str]) -> str:
    """Returns where a mistake comes from: an override of the key, or the source and overrides."""
    own = ".".join(path) + "."
    if above := [key for key in keys if own.startswith(f"{key}.")]:
        return f"override {cut(above[-1])}"
    if inside := [key for key in keys if key.startswith(own)]:
        return f"{source} with override {', '.join(map(cut, dict.fromkeys(inside)))}"
    return source


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Reads a training configuration: YAML, then `key.path=value` overrides.

    Raises:
        UserError: for a mistake, and for a setting that another leaves without effect (but not in a
            run's own config.yaml).
    """
    text = read_text(path)
    tree = to_tree(text, str(path))
    if "grid" in tree:
        raise UserError(f"{path}: is an ablation (it has a grid); run: calibtrain ablate {path}")
    overrides = list(overrides)
    config = validate(Config, apply_overrides(tree, overrides), str(path), overrides)
    check_effects(config, text, str(path), overrides)
    return config


def check_effects(
    config: Config, text: str, source: str, overrides: Sequence[str], prefix: str = ""
) -> None:
    """Refuses a setting that another leaves without effect, or warns where an override does so.

    Args:
        config: a valid configuration, overrides applied.
        text: text of the file; if calibtrain wrote it, only keys in overrides are checked.
        source: path of the file.
        overrides: overrides as `key.path=value`.
        prefix: prefix of the configuration's keys in the file: "base." in a study.
    """
    keys = _keys(overrides)
    refuse_overridden(
        config,
        lambda key: _origin(key, source, keys),
        keys,
        resolved=text.startswith(RESOLVED) or _is_of_a_run(source),
        prefix=prefix,
    )


def _keys(overrides: Iterable[str]) -> list[str]:
    return [override.partition("=")[0].strip() for override in overrides]


def _is_of_a_run(path: str | Path) -> bool:
    """Returns whether a file is the resolved configuration in a run's folder."""
    path = place(path)
    with reached(path):
        return path.name == "config.yaml" and (path.parent / "run.json").exists()


def load_study(path: str | Path, overrides: Iterable[str] = ()) -> StudyConfig:
    """Reads an ablation configuration, and checks that every value of its grid is valid.

    Raises:
        UserError: for a mistake, and for controls that other controls leave without effect.
    """
    text = read_text(path)
    tree = to_tree(text, str(path))
    if "grid" not in tree:
        raise UserError(
            f"{path}: has no grid, so it is not an ablation; run: calibtrain train {path}"
        )
    overrides = list(overrides)
    study = validate(StudyConfig, apply_overrides(tree, overrides), str(path), overrides)
    keys = _keys(overrides)
    source = _origin(["grid"], f"{path}: grid", keys)
    for key, values in study.grid.items():
        for value in values:
            with_value(study.base, {key: value}, source)
    check_effects(study.base, text, str(path), overrides, "base.")
    controls = study.controls
    if controls.parameters == "as_given" and controls.solve_for != "width":
        raise UserError(
            f"{_origin(['controls', 'solve_for'], str(path), keys)}: "
            + refusal(
                "controls.solve_for",
                controls.solve_for,
                "controls.parameters: as_given, which solves for nothing",
                "width",
            )
        )
    return study


def with_value(config: Config, changes: Mapping[str, Any], source: str = "") -> Config:
    """Returns a copy of a configuration with dotted paths replaced, validated again."""
    tree = config.model_dump(mode="json", exclude_unset=True)
    for key, value in changes.items():
        try:
            set_path(tree, key, value)
        except UserError as error:
            raise UserError(f"{source}: {error}" if source else str(error)) from None
    return validate(Config, tree, source)


def resolved_yaml(section: Section) -> str:
    """Returns the YAML of `to_yaml` after a first line that says that calibtrain wrote the file."""
    return f"{RESOLVED}\n{to_yaml(section)}"


def to_yaml(section: Section, *, ascii_only: bool = False) -> str:
    """Returns the resolved section as YAML in the order of its fields, in ASCII if asked."""
    return write_yaml(section.model_dump(mode="json"), ascii_only=ascii_only)


def config_hash(section: Section) -> str:
    """Returns the first 16 hex digits of the SHA-256 of a section's canonical JSON.

    The hash of a run leaves out the settings in `WAYS_TO_COMPUTE`.
    """
    left_out: Any = WAYS_TO_COMPUTE if isinstance(section, Config) else None
    tree = section.model_dump(mode="json", exclude=left_out)
    if isinstance(section, Config):
        tree["batch"]["accumulate"] = 1  # once part of the hash: keeps hashes as they were
        for name, keys in ADDED_LATER.items():
            own: Any = getattr(section, name) if name else section
            for key in keys if own is not None else ():
                part = tree[name] if name else tree
                if getattr(own, key) == type(own).model_fields[key].default:
                    del part[key]
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def json_schema(cls: type[Section] = Config) -> dict[str, Any]:
    """Returns the JSON schema of a section, descriptions included, for editors."""
    return cls.model_json_schema()
