"""The configurations and tokenizers that come with the program, found by name.

In a source checkout they are the folders `configs/` and `tokenizers/` beside the package; a wheel
carries the same files inside it (`setup.py` puts them there).
"""

import difflib
from pathlib import Path

from calibtrain.errors import UserError, cut, quoted
from calibtrain.storage.disk import write_whole
from calibtrain.storage.places import place, reached

PACKAGE = Path(__file__).resolve().parents[1]
INSIDE = "shipped"
"""The folder of the package that a wheel has and a checkout has not."""


def shipped(name: str) -> Path:
    """Returns the folder `configs` or `tokenizers`, of the checkout or of the installed package."""
    # Only in a checkout: next to an installed package there may be a package called tokenizers.
    if (PACKAGE.parent / "pyproject.toml").is_file():
        return PACKAGE.parent / name
    return PACKAGE / INSIDE / name


def names() -> tuple[str, ...]:
    """Returns the names of the ready-made configurations, those of no folder first.

    Example:
        >>> names()[:3]
        ('kjv-ablation', 'quickstart', 'tiny')
    """
    root = shipped("configs")
    found = [path.relative_to(root).with_suffix("") for path in root.rglob("*.yaml")]
    return tuple(path.as_posix() for path in sorted(found, key=lambda p: (len(p.parts), p)))


def path_of(name: str) -> Path:
    """Returns the file of a ready-made configuration.

    Raises:
        UserError: for a name that none has; the message lists names that are near.

    Example:
        >>> path_of("losses/focal").name
        'focal.yaml'
    """
    known = names()
    if name in known:
        return shipped("configs") / f"{name}.yaml"
    raise UserError(
        f"{quoted(name)}: no ready-made configuration has this name; {_near(name, known)}"
    )


def found(given: str) -> Path:
    """Returns the configuration file that a user names: by its path, or by a ready-made name.

    A file comes first. A text that is neither is returned as a path if it looks like one, so that
    whoever reads it says what is wrong.

    Raises:
        UserError: for a word that is neither; the message lists names that are near.
    """
    path = place(given)
    with reached(path):
        if path.is_file():
            return path
    known = names()
    if given in known:
        return path_of(given)
    if path.suffix in (".yaml", ".yml") or path.exists() or path.is_absolute():
        name = given.removeprefix("./").removeprefix("configs/").removesuffix(".yaml")
        if name in known and not path.exists():
            raise UserError(
                f"{cut(given)}: no such configuration file; the ready-made configuration of this "
                f"name is read wherever you are as {name}"
            )
        return path
    raise UserError(
        f"{cut(given)}: no such configuration file, and no ready-made configuration has this "
        f"name; {_near(given, known)}"
    )


def description(name: str) -> str:
    """Returns the first sentence of a ready-made configuration's first comment.

    Example:
        >>> description("tiny")
        'A model for first trials, which trains in about a minute on a laptop.'
    """
    said: list[str] = []
    for line in path_of(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#") or line.startswith("#   "):  # an indented line is a command
            break
        if not _is_for_editors(line):
            said.append(line.removeprefix("#").strip())
    sentence, full_stop, _ = (" ".join(said) + " ").partition(". ")
    return sentence + full_stop.strip()


def copy(name: str, file: Path) -> None:
    """Writes a ready-made configuration to a new file, without the line that names its schema.

    Raises:
        UserError: for an unknown name, and where the file exists.
    """
    text = path_of(name).read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    with reached(file):
        if file.exists():
            raise UserError(f"{file}: exists already, and is not overwritten; name another file")
        write_whole(file, "".join(line for line in lines if not _is_for_editors(line)))


def _is_for_editors(line: str) -> bool:
    return line.startswith("# yaml-language-server:")


def _near(name: str, known: tuple[str, ...]) -> str:
    """Returns which ready-made names resemble a text, as the end of a message."""
    last = {each: each.rpartition("/")[2] for each in known}
    near = [each for each in known if name.rpartition("/")[2] == last[each]]
    near = near or difflib.get_close_matches(name[:100], known, n=3, cutoff=0.5)
    near = near or [
        each for each in known if difflib.get_close_matches(name[:100], [last[each]], cutoff=0.6)
    ]
    guess = f"did you mean {' or '.join(near[:3])}? " if near else ""
    return f"{guess}calibtrain config list shows them all"
