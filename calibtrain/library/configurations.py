"""Configurations in a program: a ready-made name or a file, with settings as a mapping or texts."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from calibtrain import config as settings
from calibtrain.config import Config, StudyConfig, ready_made

Overrides = Mapping[str, Any] | Sequence[str]
"""`{"model.width": 128}`, or `{"model": {"width": 128}}`, or `["model.width=128"]`."""


def load_config(name_or_path: str | Path, overrides: Overrides = ()) -> Config:
    """Returns the configuration of a run.

    Args:
        name_or_path: a ready-made configuration, such as tiny, or the path of a YAML file.
        overrides: settings that replace the file's.

    Raises:
        UserError: for a mistake in either, in one line that names key and value.

    Example:
        >>> config = load_config("tiny", {"model.width": 128, "budget": {"steps": 100}})
        >>> config.model.width, config.budget.steps
        (128, 100)
    """
    return settings.load_config(file_of(name_or_path), as_texts(overrides))


def load_study(name_or_path: str | Path, overrides: Overrides = ()) -> StudyConfig:
    """Returns the configuration of an ablation: a base, a grid and controls.

    Args:
        name_or_path: a ready-made configuration, such as quickstart, or the path of a YAML file.
        overrides: settings that replace the file's: `{"base.budget.bytes": 100_000}`.

    Raises:
        UserError: for a mistake in either, in one line that names key and value.

    Example:
        >>> load_study("quickstart", {"grid": {"tokenizer.vocab_size": [512, 4096]}}).grid
        {'tokenizer.vocab_size': [512, 4096]}
    """
    return settings.load_study(file_of(name_or_path), as_texts(overrides))


def file_of(name_or_path: str | Path) -> Path:
    """Returns the YAML file of a ready-made name or a path."""
    return ready_made.found(str(name_or_path))


def as_texts(overrides: Overrides) -> list[str]:
    """Returns overrides as the command line takes them.

    Example:
        >>> as_texts({"model": {"width": 64}, "optimizer.clip_norm": math.inf})
        ['model.width=64', 'optimizer.clip_norm=.inf']
    """
    if isinstance(overrides, str):
        return [overrides]
    if not isinstance(overrides, Mapping):
        return list(overrides)
    return [f"{key}={_yaml(value)}" for key, value in _flat(overrides)]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields dotted keys and values; a mapping whose keys are dotted, as a grid, is a value."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value and not any("." in str(name) for name in value):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _yaml(value: Any) -> str:
    """Returns a value in YAML on one line: JSON, but for numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(str(k))}: {_yaml(v)}' for k, v in value.items())}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, float):
        return repr(float(value))
    if hasattr(value, "tolist"):  # of NumPy
        return _yaml(value.tolist())
    return json.dumps(value, default=str, ensure_ascii=False)
