"""Shared set-up: one cache of prepared data, and small trained models that many tests look at."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import pytest

from calibtrain.config import Config, validate

TINY: dict[str, Any] = {
    "corpus": {"name": "markov", "markov": {"words": 24, "successors": 4, "bytes": 60_000}},
    "tokenizer": {"vocab_size": 290},
    "context": {"tokens": 32},
    "model": {"width": 16, "depth": 1, "heads": 2},
    "batch": {"rows": 4},
    "budget": {"steps": 24},
    "log_every": 5,
    "evaluation": {"every": 8, "bytes": 2_000, "final_bytes": 3_000, "rows": 4},
    "checkpoints": {"every": 6, "keep": 10},
}
"""A run of a few seconds."""


def tiny(**changes: Any) -> Config:
    """The tiny configuration with top-level sections replaced or merged."""
    tree = json.loads(json.dumps(TINY))
    for key, value in changes.items():
        if isinstance(value, dict) and key not in ("budget", "context"):
            tree[key] = {**tree.get(key, {}), **value}
        else:
            tree[key] = value
    return validate(Config, tree)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole session, all workers together; nothing touches the user's own."""
    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    folder = folder / "cache"
    os.environ["CALIBTRAIN_CACHE"] = str(folder)
    return folder


def call(
    *arguments: str | Path, timeout: float = 300, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "calibtrain", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def everything(path: Path) -> tuple[bytes, dict[str, np.ndarray], dict[str, bytes]]:
    """Metrics to the byte, final state by path, evaluations to the byte."""
    import jax

    from calibtrain.runs.folder import RunFolder
    from calibtrain.training.saved_state import load_state

    _, state = load_state(RunFolder(path))
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    evaluations = {f.name: f.read_bytes() for f in (path / "evaluations").glob("*.json")}
    return (
        (path / "metrics.jsonl").read_bytes(),
        {jax.tree_util.keystr(p): np.asarray(leaf) for p, leaf in leaves},
        evaluations,
    )


def assert_same(one: Path, other: Path) -> None:
    mine, theirs = everything(one), everything(other)
    assert mine[0] == theirs[0]
    assert mine[1].keys() == theirs[1].keys()
    for name, array in mine[1].items():
        np.testing.assert_array_equal(array, theirs[1][name], err_msg=name)
    assert mine[2] == theirs[2]
