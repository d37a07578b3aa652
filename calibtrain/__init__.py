"""calibtrain: does vocabulary size change how well a language model knows what it knows?

Trains small Flax language models at several SentencePiece vocabulary sizes and measures
calibration and entropy rate while they train. Importing the package is light: its parts and the
functions of `calibtrain.library` are imported when they are first used.

    import calibtrain as ct
    run = ct.train(ct.load_config("tiny"), "runs/demo")
    run.evaluate(events="byte", bytes=8_000).figures["ece"]
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PARTS = (
    "ablation",
    "config",
    "data",
    "errors",
    "evaluation",
    "figures",
    "library",
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
_CALLS = {
    "ablate": "library",
    "ensemble": "library",
    "finetune": "library",
    "load_config": "library",
    "load_study": "library",
    "measure": "library",
    "open_run": "library",
    "open_study": "library",
    "train": "library",
}
"""Functions that are reached from here, and where they are. `__init__.pyi` names them too."""


def __getattr__(name: str) -> Any:
    if name in _CALLS:
        return getattr(importlib.import_module(f"calibtrain.{_CALLS[name]}"), name)
    if name in _PARTS:
        return importlib.import_module(f"calibtrain.{name}")
    raise AttributeError(f"module 'calibtrain' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PARTS, *_CALLS])
