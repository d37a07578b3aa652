"""Damaged runs and caches: what a command says of them is what it said before, or it is noticed."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forked

from fuzz import children
from fuzz.damage import damage_file
from fuzz.verdict import Case, Step

COUNT = 100
CONFIG: dict[str, Any] = {
    "corpus": {"name": "markov", "markov": {"words": 24, "successors": 4, "bytes": 30_000}},
    "tokenizer": {"vocab_size": 290},
    "context": {"tokens": 32},
    "model": {"width": 16, "depth": 1, "heads": 2},
    "batch": {"rows": 4},
    "budget": {"steps": 12},
    "log_every": 2,
    "evaluation": {"every": 4, "bytes": 1_000, "final_bytes": 2_000, "rows": 4},
    "checkpoints": {"every": 4, "keep": 10},
}
TRAIN = ("train", "c.yaml", "--run", "run", "--json", "--progress", "none")
EVALUATE = ("evaluate", "run", "--bytes", "1500", "--json")
COMPARE = (
    "temperature", "compare", "run", "--heads", "global,linear", "--bytes", "1500", "--steps", "4",
    "--json",
)  # fmt: skip
CUT_AT = 8
"""The checkpoint after which the half-trained run was killed."""
VOLATILE = {"seconds", "path", "run", "written", "tokens_per_second", "compile_seconds"}
"""Keys of what is printed that differ from one time to the next."""


@dataclass(frozen=True)
class Scenario:
    """A command, and what is damaged before it."""

    base: str
    arguments: tuple[str, ...]
    figures: str | None
    targets: tuple[str, ...]


STORES = ("cache/stores/**/*", "cache/tokenizers/**/*", "cache/corpora/**/*")
SCENARIOS = {
    "resume": Scenario(
        "half",
        TRAIN,
        "resume",
        ("run/config.yaml", "run/run.json", "run/metrics.jsonl", f"run/checkpoints/{CUT_AT}/**/*",
         f"run/checkpoints/{CUT_AT}/**/*", "run/checkpoints", "run/tokenizer/*",
         "run/evaluations/*", "run", *STORES),
    ),
    "evaluate": Scenario(
        "whole",
        EVALUATE,
        "printed",
        ("run/config.yaml", "run/run.json", "run/metrics.jsonl", "run/checkpoints/12/**/*",
         "run/checkpoints/12/**/*", "run/checkpoints", "run/tokenizer/*", "run/tokenizer/*",
         "run/evaluations/*", *STORES),
    ),
    "head": Scenario(
        "whole",
        (*EVALUATE, "--temperature", "mine"),
        "printed",
        ("run/temperature/mine/*", "run/temperature/mine/*", "run/temperature", "run/tokenizer/*"),
    ),
    "compare": Scenario(
        "whole",
        COMPARE,
        "printed",
        ("cache/hidden/**/*", "cache/hidden/**/*", "cache/hidden/**/*", *STORES[:1]),
    ),
    "report": Scenario(
        "whole",
        ("report", "run"),
        None,
        ("run/evaluations/*", "run/metrics.jsonl", "run/run.json", "run/config.yaml"),
    ),
    "export": Scenario(
        "whole",
        ("export", "run", "exported", "--json"),
        "exported",
        ("run/config.yaml", "run/run.json", "run/checkpoints/12/**/*", "run/tokenizer/*"),
    ),
    "list": Scenario("whole", ("temperature", "list", "run", "--json"), "printed",
                     ("run/temperature/mine/*",)),
}  # fmt: skip
SHARE = ("resume",) * 7 + ("evaluate",) * 6 + ("head", "compare") * 3 + ("report", "export", "list")


def prepare(base: Path, compiled: Path) -> dict[str, Any]:
    """Train a run, one that is killed half-way, heads and caches; return what commands say of them.

    Raises:
        RuntimeError: where an undamaged command fails, or says something else the second time.
    """
    for name in ("half", "whole"):
        place = base / name
        place.mkdir(parents=True)
        (place / "c.yaml").write_text(json.dumps(CONFIG))
        if name == "half":
            environment = {"CALIBTRAIN_CACHE": str(place / "cache")}
            killed(place, compiled, environment)
            continue
        for arguments in (
            TRAIN,
            ("temperature", "fit", "run", "--head", "linear", "--name", "mine", "--steps", "4",
             "--bytes", "1500", "--json"),
            COMPARE,
        ):  # fmt: skip
            succeed(place, arguments, compiled)
    wanted = {}
    for name, scenario in SCENARIOS.items():
        found = []
        for again in ("", "-again"):
            place = base / f"{name}{again}"
            shutil.copytree(base / scenario.base, place, symlinks=True)
            printed = succeed(place, scenario.arguments, compiled)
            found.append(figures(scenario.figures, place, printed))
        if found[0] != found[1]:
            raise RuntimeError(f"{scenario.arguments}: the undamaged run says two things")
        wanted[name] = found[0]
    return wanted


def succeed(place: Path, arguments: tuple[str, ...], compiled: Path) -> str:
    """What an undamaged command prints."""
    environment = {"CALIBTRAIN_CACHE": str(place / "cache")}
    ended = children.command(
        arguments, place, seconds=600, compiled=compiled, environment=environment
    )
    if ended.status != 0:
        raise RuntimeError(f"{' '.join(arguments)}: status {ended.status}: {ended.stderr[-2000:]}")
    return ended.stdout


def killed(place: Path, compiled: Path, environment: dict[str, str]) -> None:
    """Train until a checkpoint is saved, and die right after it as by SIGKILL."""

    def run() -> None:
        os.chdir(place)
        os.environ.update(environment)
        forked.share_programs(compiled)
        from calibtrain.config import load_config
        from calibtrain.evaluation import train_run
        from calibtrain.runs import checkpoint

        save = checkpoint.save

        def save_and_die(folder: Path, step: int, *rest: Any) -> None:
            save(folder, step, *rest)
            if step == CUT_AT:
                os._exit(9)

        checkpoint.save = save_and_die
        train_run(load_config(Path("c.yaml")), Path("run"))

    error = place.parent / "killed.err"
    status, _ = forked.child(run, Path(os.devnull), error, 600)
    if status != 9:
        raise RuntimeError(f"half a training: status {status}: {error.read_text()[-2000:]}")


def make(number: int, rng: random.Random, base: Path, place: Path) -> Case:
    """Copy a run and its cache, and damage one thing or two of them."""
    name = SHARE[number % len(SHARE)]
    scenario = SCENARIOS[name]
    shutil.copytree(base / scenario.base, place, symlinks=True)
    said, names = [], []
    for _ in range(rng.choice([1, 1, 1, 2])):
        pattern = rng.choice(scenario.targets)
        found = sorted(
            path
            for path in place.glob(pattern)
            if not path.name.endswith(".lock") and not path.is_symlink()
        )
        if not found:
            continue
        path = rng.choice(found)
        names += _names(path, place)
        said.append(f"{path.relative_to(place)}: {damage_file(path, rng)}")
    return Case(
        f"{name}: {'; '.join(said)}",
        (Step(scenario.arguments, name),),
        tuple(dict.fromkeys(names)),
    )


def _names(path: Path, place: Path) -> Iterator[str]:
    """What a note may call a damaged path: its name, or a folder that holds it."""
    parts = path.relative_to(place).parts
    yield path.name
    for end in range(2, len(parts) + 1):
        if parts[:end] not in (("cache", "stores"), ("run",)):
            yield "/".join(parts[:end])


def figures(kind: str | None, place: Path, printed: str) -> Any:
    """What is compared of a command that ended well."""
    if kind is None:
        return None
    if kind == "resume":
        return {**children.reading(lambda: _end_state(place / "run"), place), "lines": len(
            (place / "run" / "metrics.jsonl").read_text().splitlines())}  # fmt: skip
    if kind == "exported":
        return {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((place / "exported").iterdir())
        }
    return steady(json.loads(printed))


def of(step: Step, place: Path, printed: str) -> Any:
    """`figures` of a step, which names its scenario."""
    return figures(SCENARIOS[step.figures or ""].figures, place, printed)


def steady(tree: Any) -> Any:
    """A document without what differs from one time to the next."""
    if isinstance(tree, dict):
        return {key: steady(value) for key, value in tree.items() if key not in VOLATILE}
    if isinstance(tree, list):
        return [steady(value) for value in tree]
    return tree


def _end_state(run: Path) -> dict[str, str]:
    """Hashes of the parameters and metrics at the end of a run. Needs JAX."""
    import jax
    import numpy as np
    from saved_state import load_state

    from calibtrain.runs.folder import RunFolder

    _, state = load_state(RunFolder(run))
    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    digest = hashlib.sha256()
    for path, leaf in leaves:
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    metrics = (run / "metrics.jsonl").read_bytes()
    return {"state": digest.hexdigest(), "metrics": hashlib.sha256(metrics).hexdigest()}
