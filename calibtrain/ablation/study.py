"""Expands a study's grid: each combination of values is an arm, named after its values."""

import dataclasses
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from calibtrain.config import (
    Config,
    StudyConfig,
    config_hash,
    overridden,
    refusal,
    replaced_by,
    with_value,
)
from calibtrain.errors import UserError


@dataclasses.dataclass(frozen=True)
class Arm:
    """One combination of the grid.

    Attributes:
        name: name of its run folder, for example "vocab_size=512,seed=0".
        settings: dotted path -> value.
        config: the base with those settings.
    """

    name: str
    settings: Mapping[str, Any]
    config: Config


def with_seeds(study: StudyConfig) -> StudyConfig:
    """Returns the study with the seeds of `base.train.replicas` in its grid, if it has no seeds."""
    replicas, seed = study.base.train.replicas, study.base.seed
    if replicas == 1 or "seed" in study.grid:
        return study
    grid = {**study.grid, "seed": list(range(seed, seed + replicas))}
    return study.model_copy(update={"grid": grid})


def expand(study: StudyConfig) -> list[Arm]:
    """Returns the arms of a study, in the order of its grid (the last key varies fastest).

    Raises:
        UserError: for a combination that is not a valid configuration, or two equal ones.
    """
    keys = list(study.grid)
    _check_keys(keys)
    short = {key: key.rpartition(".")[2] for key in keys}
    if len(set(short.values())) < len(keys):
        short = {key: key for key in keys}
    combinations = [
        dict(zip(keys, values, strict=True)) for values in itertools.product(*study.grid.values())
    ]
    names = [
        ",".join(f"{short[key]}={_slug(value)}" for key, value in settings.items())
        for settings in combinations
    ]
    shared = {name for name, count in Counter(names).items() if count > 1}
    arms: dict[str, Arm] = {}
    for name, settings in zip(names, combinations, strict=True):
        alone = {**settings, "train.replicas": 1}  # an arm is one run, however it is trained
        config = with_value(study.base, alone, f"grid, arm {name}")
        _check_effects(config, keys, f"grid, arm {name}")
        key = config_hash(config)
        if key in arms:
            other = arms[key].name
            alike = "" if other == name else f": it is the same run as {other}"
            raise UserError(f"grid: {name} comes twice{alike}; remove one of the equal values")
        if name in shared:  # values that a shortened name does not tell apart
            name += "-" + key[:8]
        arms[key] = Arm(name, settings, config)
    _check_base(study, list(arms.values()))
    return list(arms.values())


def _check_keys(keys: Sequence[str]) -> None:
    """Refuses keys of a grid that undo each other, or that only say how arms are trained."""
    for index, key in enumerate(keys):
        if key in ("train", "train.replicas"):
            raise UserError(
                f"grid: {key}: says how arms are trained, not what they are; set it in base"
            )
        if undone := replaced_by(key, keys[:index]):
            raise UserError(
                f"grid: {key}: replaces {undone}, which the grid varies too; leave one of them out"
            )


def _check_effects(config: Config, keys: Sequence[str], source: str) -> None:
    """Refuses a value of the grid that another setting of its arm leaves without effect."""
    for key, value, because, default in overridden(config):
        if any(f"{key}.".startswith(f"{each}.") for each in keys):
            raise UserError(f"{source}: {refusal(key, value, because, default)}")


def _check_base(study: StudyConfig, arms: Sequence[Arm]) -> None:
    """Refuses a setting of the base that the grid leaves without effect in every arm."""
    of_base = {key for key, *_ in overridden(study.base)}  # checked when the study was read
    of_arms = [{key: rest for key, *rest in overridden(arm.config)} for arm in arms]
    for key, (value, because, default) in of_arms[0].items():
        if key not in of_base and all(key in found for found in of_arms):
            raise UserError(f"base.{refusal(key, value, because, default)} (in every arm)")


def _slug(value: Any) -> str:
    if isinstance(value, Mapping):
        return "-".join(_slug(part) for part in value.values())
    if isinstance(value, list) and value:
        return "+".join(_slug(part) for part in value)
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-")[:60] or "empty"
