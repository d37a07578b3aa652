"""A run and a corpus in, an `Evaluation` out; while training, and afterwards."""

from calibtrain.evaluation.domains import evaluate_domains
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
    "read_evaluation",
    "train_run",
    "train_together",
]
