"""Shared set-up: one cache of prepared data, and small trained models that many tests look at."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

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


def call(*arguments: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would."""
    return subprocess.run(
        [sys.executable, "-m", "calibtrain", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
