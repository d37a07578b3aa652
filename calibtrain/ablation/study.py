"""The grid: every combination of its values is an arm, with a name fit for a folder."""

import dataclasses
import itertools
import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from calibtrain.config import Config, StudyConfig, config_hash, with_value
from calibtrain.errors import UserError


@dataclasses.dataclass(frozen=True)
class Arm:
    """One combination of the grid.

    Attributes:
        name: of its run folder, for example "vocab_size=512,seed=0".
        settings: dotted path -> value.
        config: the base with those settings.
    """

    name: str
    settings: Mapping[str, Any]
    config: Config


def with_seeds(study: StudyConfig) -> StudyConfig:
    """The study with the seeds that `base.train.replicas` asks for, where its grid names none."""
    replicas, seed = study.base.train.replicas, study.base.seed
    if replicas == 1 or "seed" in study.grid:
        return study
    grid = {**study.grid, "seed": list(range(seed, seed + replicas))}
    return study.model_copy(update={"grid": grid})


def expand(study: StudyConfig) -> list[Arm]:
    """The arms of a study, in the order of its grid (the last key varies fastest).

    Raises:
        UserError: for a combination that is no valid configuration, naming it, or two alike.
    """
    keys = list(study.grid)
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
        alone = {**settings, "train.replicas": 1}  # whatever trains it, an arm is one run
        config = with_value(study.base, alone, f"grid, arm {name}")
        key = config_hash(config)
        if key in arms:
            raise UserError(f"grid: {name} comes twice; remove one of the equal values")
        if name in shared:  # values that differ in what a name leaves out
            name += "-" + key[:8]
        arms[key] = Arm(name, settings, config)
    return list(arms.values())


def _slug(value: Any) -> str:
    if isinstance(value, Mapping):
        return "-".join(_slug(part) for part in value.values())
    if isinstance(value, list) and value:
        return "+".join(_slug(part) for part in value)
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-")[:60] or "empty"
