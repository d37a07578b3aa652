"""calibtrain in a program or a notebook: the functions behind `import calibtrain as ct`.

They call what the commands of their names call. Importing a name imports its file.
"""

import importlib
from typing import Any

_HOMES = {
    "Consistency": "consistency",
    "Ensemble": "ensembles",
    "EnsembleScore": "ensembles",
    "EnsembleTexts": "ensembles",
    "EntropyAnalysis": "analysis_results",
    "FittedLookahead": "analysis_results",
    "MemoryAnalysis": "analysis_results",
    "Overrides": "configurations",
    "Traced": "analysis_results",
    "TypicalityAnalysis": "analysis_results",
    "load_config": "configurations",
    "load_study": "configurations",
    "Generated": "generated",
    "Head": "heads",
    "HeadComparison": "heads",
    "Progress": "progress",
    "EvaluationResult": "result",
    "Figure": "result",
    "QuestionConsistency": "consistency",
    "Run": "run",
    "Study": "study",
    "Table": "table",
    "ablate": "training",
    "ensemble": "ensembles",
    "finetune": "training",
    "measure": "result",
    "open_run": "training",
    "open_study": "training",
    "train": "training",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"calibtrain.library.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'calibtrain.library' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
