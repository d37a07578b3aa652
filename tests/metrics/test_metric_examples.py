"""The examples in the docstrings of the metrics run, and every public function has one."""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest

from calibtrain import metrics

MODULES = [module.name for module in pkgutil.iter_modules(metrics.__path__)]
INSIDE = {"arguments", "error_intervals", "ordered", "resampling"}
"""Modules that other metrics are made of, without a public name."""
RESULTS = {"BrierParts", "Interval", "MassCalibration"}
"""Public names that are only returned."""


@pytest.mark.parametrize("name", sorted(set(MODULES) - INSIDE))
def test_the_examples_run(name: str) -> None:
    with np.printoptions(precision=4, suppress=True):
        found = doctest.testmod(importlib.import_module(f"calibtrain.metrics.{name}"))
    assert found.attempted
    assert not found.failed


def test_every_public_name_has_an_example() -> None:
    assert set(MODULES) > INSIDE
    for name in set(metrics.__all__) - RESULTS:
        assert "Example:" in (getattr(metrics, name).__doc__ or ""), name
