"""The examples in docstrings of the room."""

import doctest
import importlib
import pkgutil

import pytest

import calibtrain.ensembles
from calibtrain.runs import ensemble_traces

MODULES = [each.name for each in pkgutil.iter_modules(calibtrain.ensembles.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    module = importlib.import_module(f"calibtrain.ensembles.{name}")
    assert doctest.testmod(module).failed == 0


def test_rows_of_a_trace_are_a_table() -> None:
    assert doctest.testmod(ensemble_traces).failed == 0
