"""The examples in the docstrings of the losses run, and every loss has one."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

from calibtrain import losses

MODULES = ["", *(module.name for module in pkgutil.iter_modules(losses.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name: str) -> None:
    module = importlib.import_module(f"calibtrain.losses.{name}".rstrip("."))
    with np.printoptions(precision=4, suppress=True):
        found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


def test_every_loss_has_an_example() -> None:
    public = {getattr(losses, name) for name in losses.__all__}
    for loss in (each for each in public if not inspect.isabstract(each)):
        assert "Example:" in (loss.__doc__ or ""), loss
