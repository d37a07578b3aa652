"""What must hold of a case, and what was found: the rule of the fuzz in one place.

A command ends with status 0, 2 or 75 within its time; where it fails it says one line that begins
with "calibtrain: ", and leaves nothing half-written; it never shows a traceback. Damage that
changes a figure is refused, or a note on standard error names what is damaged.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz.children import Ended

ALLOWED = (0, 2, 75)
LONGEST = 1500
"""Characters of a line that a person may still read."""
HALF_WRITTEN = (".tmp-", "orbax-checkpoint-tmp", ".partial")
NOT_LOOKED_AT = ("cache/compiled",)


@dataclass(frozen=True)
class Step:
    """A command of a case.

    Attributes:
        arguments: after `calibtrain`.
        figures: name of what is compared with the undamaged run's, by its kind; None compares
            nothing.
        makes: runs that it may leave even where it fails, if they are whole, by their paths.
    """

    arguments: tuple[str, ...]
    figures: str | None = None
    makes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A folder with something wrong in it.

    Attributes:
        what: was done, in words.
        steps: commands, of which each but the last must succeed for the next.
        damaged: names of which a note must hold one, where a figure changed.
        must_notice: whether a success without such a note is a failure even if figures agree.
        changes: whether figures must change, since what is asked for is another model.
    """

    what: str
    steps: tuple[Step, ...]
    damaged: tuple[str, ...] = ()
    must_notice: bool = False
    changes: bool = False


@dataclass(frozen=True)
class Verdict:
    """`ok`, `note`, `refused`, or what is wrong."""

    outcome: str
    what: str = ""
    wrong: tuple[str, ...] = ()
    shown: str = ""
    seconds: float = 0.0
    commands: tuple[str, ...] = field(default=())


def tree(place: Path) -> dict[str, str]:
    """Every path in a folder, with what tells whether it changed."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = path.relative_to(place).as_posix()
        if name.startswith(NOT_LOOKED_AT):
            continue
        if path.is_symlink():
            found[name] = "link to " + os.readlink(path)
        elif path.is_dir():
            found[name] = "folder"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "special"
    return found


def wrong_with_ending(ended: Ended) -> list[str]:
    """What no command may do, whatever it is given."""
    wrong = []
    if ended.status is None:
        return [f"not done after {ended.seconds:.0f} s"]
    if ended.status not in ALLOWED:
        wrong.append(f"status {ended.status}")
    if "Traceback (most recent call last)" in ended.stderr + ended.stdout:
        wrong.append("a traceback")
    if "Exception ignored" in ended.stderr:
        wrong.append("an exception that was ignored")
    lines = ended.stderr.splitlines()
    if ended.status != 0:
        said = sum(line.startswith("calibtrain: ") for line in lines)
        if said != 1:
            wrong.append(f"{said} lines begin with 'calibtrain: ', not one")
    longest = max(map(len, lines), default=0)
    if longest > LONGEST:
        wrong.append(f"a line of {longest:,} characters")
    return wrong


def wrong_with_files(
    ended: Ended, before: Mapping[str, str], after: Mapping[str, str], makes: Sequence[str]
) -> list[str]:
    """What is half-written, and after a failure what is there that was not."""
    new = [name for name in after if name not in before]
    half = [name for name in new if any(part in Path(name).name for part in HALF_WRITTEN)]
    wrong = [f"left half-written: {name}" for name in half[:3]]
    if ended.status in (0, None):
        return wrong
    whole = [name for name in makes if f"{name}/config.yaml" in after]
    for name in sorted({*before, *after}):
        parts = Path(name).parts
        if before.get(name) == after.get(name) or name in half:
            continue
        if parts[-1].endswith(".lock") or parts[0] == "cache":
            continue
        if any(name == made or name.startswith(f"{made}/") for made in whole):
            continue
        how = "made" if name in new else "changed" if name in after else "removed"
        wrong.append(f"{how} though it failed: {name}")
    return wrong[:4]


def wrong_with_figures(said: str, got: Any, want: Any, case: Case) -> list[str]:
    """A figure that changed, and no note on standard error that names what is damaged."""
    noted = any(name in said for name in case.damaged)
    if case.must_notice and not noted:
        return [f"not noticed: no note names {' or '.join(case.damaged)}"]
    if case.changes:
        return ["not noticed: the figures did not change"] if got == want and not noted else []
    if got == want or noted:
        return []
    return [f"not noticed: {difference(got, want)}"]


def difference(got: Any, want: Any, where: str = "") -> str:
    """The first place at which two trees differ, in words; empty where they are equal."""
    if isinstance(got, Mapping) and isinstance(want, Mapping):
        for key in (*want, *(key for key in got if key not in want)):
            if key not in got or key not in want:
                return f"{where}.{key} is {'there' if key in got else 'missing'}".lstrip(".")
            if found := difference(got[key], want[key], f"{where}.{key}"):
                return found
        return ""
    if isinstance(got, list) and isinstance(want, list) and len(got) == len(want):
        for index, (mine, theirs) in enumerate(zip(got, want, strict=True)):
            if found := difference(mine, theirs, f"{where}[{index}]"):
                return found
        return ""
    if got == want:
        return ""
    return f"{where.lstrip('.')} is {str(got)[:60]}, was {str(want)[:60]}"
