"""Reads the rotary positions of a `config.json`, as transformers 5 does.

Where `rope_scaling` is given, it is used, else `rope_parameters`. The base is the one inside it,
else `rope_theta` beside it, else 10,000 (`convert_rope_params_to_dict`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from calibtrain.errors import UserError
from calibtrain.models.huggingface.keys import shown
from calibtrain.models.huggingface.parameters import listed

_BASE = 10_000.0
_COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_VALUES: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "linear": {"factor": "factor"},
    "llama3": {
        "factor": "factor",
        "low_freq_factor": "low_frequency_factor",
        "high_freq_factor": "high_frequency_factor",
        "original_max_position_embeddings": "original_context",
    },
}
"""By rope type, the names of its keys in our configuration."""
_OF_OTHERS = {
    *_VALUES["llama3"],
    *("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    *("short_factor", "long_factor", "finetuned"),
}
"""Keys that only some rope types read."""


@dataclasses.dataclass(frozen=True)
class Rope:
    """Rotary positions.

    Attributes:
        base: base of the frequencies.
        scaling: our `model.rope_scaling`.
        notes: settings that are not used, one sentence each.
    """

    base: float
    scaling: Mapping[str, Any]
    notes: tuple[str, ...]


def read_rope(tree: Mapping[str, Any], source: str) -> Rope:
    """Returns the rotary positions of a `config.json`.

    Raises:
        UserError: for settings that are unknown, missing or contradictory; it names them.
    """
    notes = []
    parts = {key: _part(tree, key, source) for key in ("rope_scaling", "rope_parameters")}
    given = [key for key, part in parts.items() if part]
    name = given[0] if given else "rope_scaling"
    rope = parts[name]
    if len(given) == 2 and any(
        rope.get(key) != value for key, value in parts["rope_parameters"].items()
    ):
        notes.append(
            "config.json has rope_scaling and rope_parameters, which differ: rope_scaling alone "
            "counts, as in transformers"
        )
    kinds = [rope[key] for key in ("rope_type", "type") if key in rope] or ["default"]
    if any(kind != kinds[0] for kind in kinds):
        raise UserError(
            f"{source}: {name} has rope_type {shown(kinds[0])} and type {shown(kinds[1])}"
        )
    kind = kinds[0]
    if not isinstance(kind, str) or kind not in _VALUES:
        raise UserError(
            f"{source}: rope type {shown(kind)} is not known; allowed: {', '.join(_VALUES)}"
        )
    values = _VALUES[kind]
    if absent := [key for key in values if key not in rope]:
        raise UserError(f"{source}: rope type {kind} has no {', '.join(absent)}")
    if unknown := sorted({*rope} - _COMMON - _OF_OTHERS):
        odd = listed([shown(key) for key in unknown])
        raise UserError(f"{source}: {name} has keys that are not known: {odd}")
    if unused := sorted({*rope} - _COMMON - {*values}):
        notes.append(f"rope type {kind} does not use {', '.join(unused)}, which {name} has")
    if rope.get("partial_rotary_factor", 1) != 1:
        raise UserError(
            f"{source}: asks for what calibtrain does not have: partial_rotary_factor "
            f"{shown(rope['partial_rotary_factor'])} (allowed: 1)"
        )
    beside = tree.get("original_max_position_embeddings")
    if kind == "llama3" and beside not in (None, rope["original_max_position_embeddings"]):
        raise UserError(
            f"{source}: original_max_position_embeddings is {shown(beside)} and, in {name}, "
            f"{shown(rope['original_max_position_embeddings'])}"
        )
    outside = number(tree, "rope_theta", source, _BASE)
    base = number(rope, "rope_theta", f"{source}: {name}", outside)
    if "rope_theta" in tree and base != outside:
        notes.append(
            f"rope_theta is {outside:g} and, in {name}, {base:g}: the latter counts, as in "
            "transformers"
        )
    scaling = {ours: number(rope, key, f"{source}: {name}") for key, ours in values.items()}
    return Rope(base, {"kind": kind, **scaling} if values else {}, tuple(notes))


def number(tree: Mapping[str, Any], key: str, source: str, default: float | None = None) -> Any:
    """Returns a number of a file; UserError where it is something else."""
    value = tree.get(key, default)
    if type(value) not in (int, float):
        raise UserError(f"{source}: {key} is {shown(value)}; it must be a number")
    return value


def _part(tree: Mapping[str, Any], key: str, source: str) -> Mapping[str, Any]:
    part = tree.get(key)
    if part is None:
        return {}
    if not isinstance(part, Mapping):
        raise UserError(f"{source}: {key} is {shown(part)}; it must be an object")
    return part
