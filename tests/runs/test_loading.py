"""A saved run: its parameters are read without the optimizer that trained them."""

from pathlib import Path

import jax
import numpy as np
from conftest import tiny
from saved_state import load_state

from calibtrain.evaluation import train_run
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.latest_checkpoint import load_params
from calibtrain.runs.loading import opened


def test_parameters_are_those_of_the_whole_state(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "run"
    outcome = train_run(tiny(), path, cache=cache)
    at, state = load_state(RunFolder(path))
    step, params = load_params(RunFolder(path))
    assert at == step == outcome.step
    with opened(path, cache) as saved:
        assert (saved.step, saved.context) == (step, outcome.summary["context_tokens"])
        for found in (params, saved.params()):
            assert jax.tree.structure(found) == jax.tree.structure(state.params)
            leaves = (jax.tree.leaves(each) for each in (found, state.params))
            for mine, theirs in zip(*leaves, strict=True):
                np.testing.assert_array_equal(mine, theirs)
