"""Shared set-up: one cache of prepared data, and small trained models that many tests look at."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import pytest
from commands import Commands
from forked import share_programs
from hypothesis import settings

from calibtrain.config import Config, validate

UNOPTIMISED = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""How the first tier compiles, in half the time: what it looks at is the same. The long tests run
programs as users do."""

TINY: dict[str, Any] = {
    "corpus": {
        "name": "markov",
        "markov": {"words": 24, "successors": 4, "bytes": 60_000, "mean_document_words": 100.0},
        "validation_fraction": 0.1,
        "test_fraction": 0.1,
    },
    "tokenizer": {"vocab_size": 290},
    "context": {"tokens": 32},
    "model": {"width": 16, "depth": 1, "heads": 2},
    "batch": {"rows": 4},
    "budget": {"steps": 24},
    "log_every": 5,
    "evaluation": {"every": 8, "bytes": 2_000, "final_bytes": 4_000, "rows": 4},
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


settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    if "not long" in config.option.markexpr:
        os.environ.setdefault("XLA_FLAGS", UNOPTIMISED)


TRAINING = (
    "ablation",
    "evaluation",
    "finetuning",
    "temperature",
    "training",
    "library",
    "trackers",
)
"""Folders whose files wait for runs that are trained."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with files that take long, so that no worker is left with one at the end."""
    items.sort(key=lambda item: item.path.parent.name not in TRAINING)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of this session have in common."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if os.environ.get("PYTEST_XDIST_WORKER") else folder


@pytest.fixture(scope="session", autouse=True)
def cache(shared: Path) -> Path:
    """One cache for the whole session, all workers together; nothing touches the user's own."""
    folder = shared / "cache"
    os.environ["CALIBTRAIN_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compile every program once a worker, and end the process that forks commands."""
    programs = tmp_path_factory.mktemp("programs")
    share_programs(programs)
    _command_line.programs = programs
    yield
    _command_line.stop()


@pytest.fixture(scope="session")
def finished_run(shared: Path, cache: Path) -> Path:
    """The tiny run, trained once for all workers; to be copied: commands lock what they read."""
    return _trained_once(shared / "finished", tiny())


@pytest.fixture(scope="session")
def finished_lstm(shared: Path, cache: Path) -> Path:
    """The tiny run of an LSTM, likewise."""
    return _trained_once(shared / "finished lstm", tiny(model={"kind": "lstm"}))


def _trained_once(folder: Path, config: Config) -> Path:
    from calibtrain.evaluation import train_run
    from calibtrain.storage.disk import locked

    folder.mkdir(exist_ok=True)
    with locked(folder / "lock"):
        if not (folder / "run").exists():
            assert train_run(config, folder / "run").status == "done"
    return folder / "run"


_command_line = Commands()


def call(
    *arguments: str | Path, timeout: float = 300, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user would, in a process of its own.

    Flags of XLA in `environment` are added to those that there are.
    """
    environment = dict(environment or {})
    if "XLA_FLAGS" in environment:
        environment["XLA_FLAGS"] += " " + os.environ.get("XLA_FLAGS", "")
    return _command_line.run(list(map(str, arguments)), {**os.environ, **environment}, timeout)


def everything(path: Path) -> tuple[bytes, dict[str, np.ndarray], dict[str, bytes]]:
    """Metrics to the byte, final state by path, evaluations to the byte."""
    import jax
    from saved_state import load_state

    from calibtrain.runs.folder import RunFolder

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
