"""The configurations that come with the program, found by name."""

import difflib
from pathlib import Path

from calibtrain.errors import UserError, cut
from calibtrain.storage.places import place, reached

ROOT = Path(__file__).resolve().parents[2] / "configs"


def names() -> tuple[str, ...]:
    """Returns the names of the ready-made configurations, those of no folder first."""
    found = [path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.yaml")]
    return tuple(path.as_posix() for path in sorted(found, key=lambda p: (len(p.parts), p)))


def path_of(name: str) -> Path:
    """Returns the file of a ready-made configuration.

    Raises:
        UserError: for a name that none has; the message lists names that are near.
    """
    known = names()
    if name in known:
        return ROOT / f"{name}.yaml"
    near = difflib.get_close_matches(name[:100], known, n=3, cutoff=0.5)
    guess = f"; did you mean {' or '.join(near)}?" if near else ""
    raise UserError(f"{cut(name)}: no ready-made configuration has this name{guess}")


def found(given: str) -> Path:
    """Returns the configuration file that a user names: by its path, or by a ready-made name.

    A file comes first. A text that looks like a path is returned as one.

    Raises:
        UserError: for a word that is neither; the message lists names that are near.
    """
    path = place(given)
    with reached(path):
        if path.is_file():
            return path
    if path.suffix in (".yaml", ".yml") or path.exists() or path.is_absolute():
        return path
    return path_of(given)
