"""From scored events to an `Evaluation`: of a run, in training and later; of any predictions."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calibtrain.evaluation.domains import evaluate_domains
    from calibtrain.evaluation.predictions import measure
    from calibtrain.evaluation.result import Evaluation, read_evaluation
    from calibtrain.evaluation.saved_run import evaluate_run, evaluate_run_on_text
    from calibtrain.evaluation.tokens import TokenEvaluator
    from calibtrain.evaluation.while_training import train_run, train_together

__all__ = [
    "Evaluation",
    "TokenEvaluator",
    "evaluate_domains",
    "evaluate_run",
    "evaluate_run_on_text",
    "measure",
    "read_evaluation",
    "train_run",
    "train_together",
]
_HOMES = {
    "Evaluation": "result",
    "TokenEvaluator": "tokens",
    "evaluate_domains": "domains",
    "evaluate_run": "saved_run",
    "evaluate_run_on_text": "saved_run",
    "measure": "predictions",
    "read_evaluation": "result",
    "train_run": "while_training",
    "train_together": "while_training",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:  # what only reads records, or measures predictions, loads no trainer
        return getattr(importlib.import_module(f"calibtrain.evaluation.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'calibtrain.evaluation' has no attribute {name!r}")
