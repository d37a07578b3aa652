"""The examples of what measures the agreement of samples."""

import doctest
from types import ModuleType

import pytest

from calibtrain.analysis import (
    alignment,
    answers,
    confidence_figures,
    consistency,
    sample_consistency,
)
from calibtrain.figures import agreement
from calibtrain.library import consistency as of_library


@pytest.mark.parametrize(
    "module",
    [
        *(alignment, answers, confidence_figures, consistency, sample_consistency),
        *(agreement, of_library),
    ],
    ids=lambda module: module.__name__,
)
def test_examples_run(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed
