"""What a shell completes: folders of runs, files of configurations, names.

`calibtrain --install-completion` sets it up. Nothing here reads more than a listing of one folder,
as a user waits for it at every press of the key.
"""

import os
from collections.abc import Callable, Iterable

import typer

from calibtrain.config import ready_made

_RESULTS = ("config.yaml", "ablation.json")
"""A folder with one of these is a run or a study."""
_PARTS_OF_A_RUN = ("checkpoints", "evaluations", "tokenizer", "temperature", "configs")


def complete_folder(incomplete: str) -> list[str]:
    """Returns the folders that a text begins: a run or a study by its name, others with a slash."""
    return [path if _is_result(path) else f"{path}/" for path in _folders(incomplete)]


def complete_config(incomplete: str) -> list[str]:
    """Returns the YAML files and folders that a text begins, and the ready-made names."""
    files = [
        path
        for path in _entries(incomplete)
        if path.endswith((".yaml", ".yml")) and os.path.isfile(path)
    ]
    ready = [name for name in ready_made.names() if name.startswith(incomplete)]
    return sorted([*files, *ready, *(f"{path}/" for path in _folders(incomplete))])


def complete_fitted_head(context: typer.Context, incomplete: str) -> list[str]:
    """Returns the heads that were fitted to the run that is named before."""
    named = [context.params.get("run"), *context.args]  # the latter while an option lacks its value
    folders = [os.path.join(str(run), "temperature") for run in named if run]
    names = {entry.name for folder in folders for entry in _scan(folder) if entry.is_dir()}
    return sorted(name for name in names if name.startswith(incomplete))


def complete_one_of(values: Iterable[str]) -> Callable[[str], list[str]]:
    """Returns what completes one of several words."""
    words = list(values)
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


def _folders(incomplete: str) -> list[str]:
    return [
        path
        for path in _entries(incomplete)
        if os.path.isdir(path) and os.path.basename(path) not in _PARTS_OF_A_RUN
    ]


def _entries(incomplete: str) -> list[str]:
    """Returns the paths that a text begins, as they are typed."""
    folder, _, begun = incomplete.rpartition("/")
    folder = f"{folder}/" if "/" in incomplete else ""
    return sorted(
        folder + entry.name
        for entry in _scan(os.path.expanduser(folder) or ".")
        if entry.name.startswith(begun) and (begun or not entry.name.startswith("."))
    )


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_result(path: str) -> bool:
    return any(os.path.exists(os.path.join(path, name)) for name in _RESULTS)
