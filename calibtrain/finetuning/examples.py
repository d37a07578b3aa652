"""The examples of an objective: answers, pairs of answers, or the candidates of questions."""

from calibtrain.config import FinetuningConfig
from calibtrain.data.batches.examples import FIELDS, Example, read_examples
from calibtrain.data.questions.examples import read_question_examples

CANDIDATES = ("softmax", "margin")
"""Objectives over the candidates of questions."""


def examples_of(settings: FinetuningConfig) -> tuple[list[Example], str]:
    """Returns the examples of a fine-tuning, and a hash of their files.

    Raises:
        UserError: for a file that cannot be read, or a line that is not an example of the
            objective.
    """
    if settings.objective in CANDIDATES:
        return read_question_examples(settings.paths, settings.template, settings.choices)
    return read_examples(settings.paths, FIELDS[settings.objective])
