"""calibtrain: does vocabulary size change how well a language model knows what it knows?

Trains small Flax language models at several SentencePiece vocabulary sizes and measures
calibration and entropy rate while they train. Importing the package is light: its parts are
imported when they are first used (`calibtrain.metrics`, `calibtrain.readout`, ...).
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PARTS = (
    "ablation",
    "config",
    "data",
    "evaluation",
    "figures",
    "losses",
    "metrics",
    "models",
    "parallel",
    "posthoc",
    "readout",
    "report",
    "runs",
    "temperature",
    "training",
)


_CALLS = {"measure": "evaluation.predictions"}
"""Functions that are reached from here, and where they are."""


def __getattr__(name: str) -> Any:
    if name in _CALLS:
        return getattr(importlib.import_module(f"calibtrain.{_CALLS[name]}"), name)
    if name in _PARTS:
        return importlib.import_module(f"calibtrain.{name}")
    raise AttributeError(f"module 'calibtrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PARTS, *_CALLS])
