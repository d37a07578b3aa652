"""Checkpoints: a state and what it belongs to, one folder per step.

A state is saved as a flat mapping from path to array (see `array_store`), so that neither Orbax's
nor Optax's ideas of containers can come between two versions. Orbax writes under a temporary name
and renames (in a bucket, it does not). Then every array is read back on a disk, and opened in a
bucket; and the checksums of the files are written beside them (`checksums`). A folder without
checksums counts as unfinished.
"""

import dataclasses
import errno
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from calibtrain.errors import UserError, one_line
from calibtrain.parallel import hosts
from calibtrain.runs.array_store import (
    HeldArray,
    begin_to_write,
    held_array,
    read_about,
    read_arrays,
    require_readable,
    write_arrays,
)
from calibtrain.runs.checksums import CHECKSUMS, verify, write_checksums
from calibtrain.storage.disk import disk_error_in, disk_errors, make_folder
from calibtrain.storage.places import absolute, in_bucket, reached, remove_tree

Tree = TypeVar("Tree")

MOST_STEPS = 2**31 - 1
"""The most steps of a run: a state counts them in 32 bits."""
_STEP = r"0|[1-9][0-9]*"  # 0: of what was imported


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a checkpoint belongs to, as hashes; a run refuses one that differs.

    Attributes:
        config: of the configuration.
        tokenizer: of the tokenizer.
        corpus: of the training text; None where a reader does not have it at hand.
    """

    config: str
    tokenizer: str
    corpus: str | None

    def check(self, found: dict[str, Any], path: Path) -> None:
        """Raises a UserError where a checkpoint's identity is not this one."""
        for name, mine in dataclasses.asdict(self).items():
            if mine is not None and found.get(name) != mine:
                raise UserError(
                    f"{path}: was made with another {name} (hash {found.get(name)}, this run has "
                    f"{mine}); use the run folder it belongs to, or another --run"
                )


def read_identity(folder: Path, step: int) -> Identity:
    """Returns what a whole checkpoint belongs to."""
    found = read_facts(folder, step)
    return Identity(found.get("config", ""), found.get("tokenizer", ""), found.get("corpus"))


def read_facts(folder: Path, step: int) -> dict[str, Any]:
    """Returns all that is known of a whole checkpoint: what it belongs to, its step, its facts.

    Raises:
        UserError: where the file that says so is damaged.
    """
    path = absolute(folder) / str(step)
    try:
        with reached(folder):
            return read_about(path)
    except (OSError, ValueError) as error:
        raise _damaged(path, f"what it belongs to: {one_line(str(error))}") from error


def fingerprint(folder: Path, step: int) -> str:
    """Returns the SHA-256 of a whole checkpoint's checksums: copies share it, others do not."""
    with reached(folder):
        return hashlib.sha256((folder / str(step) / CHECKSUMS).read_bytes()).hexdigest()


def steps_saved(folder: Path) -> list[int]:
    """Returns the steps of the whole checkpoints in a folder, ascending.

    Raises:
        UserError: for a folder whose name is a number that no run counts up to.
    """
    with reached(folder):
        whole = [path.parent.name for path in folder.glob(f"*/{CHECKSUMS}")]
    steps = sorted(int(name) for name in whole if re.fullmatch(_STEP, name))
    if steps and steps[-1] > MOST_STEPS:
        raise UserError(
            f"{folder / str(steps[-1])}: is named as the checkpoint of a step, and a run has at "
            f"most {MOST_STEPS:,}; give that folder its own name back, or remove it"
        )
    return steps


def save(
    folder: Path, step: int, state: Any, identity: Identity, facts: Mapping[str, Any] | None = None
) -> None:
    """Saves a state, unless it is there. What was written is read back before it counts as whole.

    Args:
        folder: of the run's checkpoints.
        step: of the state.
        state: any tree of arrays.
        identity: what it belongs to.
        facts: what else is to be known of it (`read_facts`).

    Raises:
        UserError: when the disk is full or may not be written, or what was written cannot be read.
            The earlier checkpoints are as they were.
    """
    if step in steps_saved(folder):
        return
    with disk_errors(folder):
        remove_unfinished(folder)
    begun = begin(folder, step, state, identity, facts)
    begun.write()
    begun.seal()


@dataclasses.dataclass(frozen=True)
class Unsealed:
    """A checkpoint that was begun: its numbers are in the host's memory. A thread may finish it.

    Attributes:
        path: its folder.
        arrays: what this host keeps of them, to be compared.
        writes: returns once every process has written its arrays.
    """

    path: Path
    arrays: Mapping[str, HeldArray]
    writes: Callable[[], None]

    def write(self) -> None:
        """Writes the arrays; every process comes here.

        Raises:
            UserError: as `save` does.
        """
        with disk_errors(self.path):
            try:
                self.writes()
            except Exception as error:
                if hosts.is_primary():
                    remove_unfinished(self.path.parent, self.path.name)
                found = disk_error_in(error)
                if isinstance(found, FileNotFoundError):
                    raise UserError(
                        f"{self.path}: cannot write: a folder above it was removed or moved; start "
                        "again, with --run where it is now"
                    ) from error
                raise found from error

    def seal(self) -> None:
        """Makes the checkpoint whole; the primary comes here once all is written.

        Raises:
            UserError: as `save` does.
        """
        try:
            with disk_errors(self.path):
                require_readable(self.path, self.arrays)
                write_checksums(self.path)
        except ValueError as error:
            with suppress(UserError):
                remove_unfinished(self.path.parent, self.path.name)
            raise UserError(
                f"{self.path}: was written, but cannot be read back ({error}); it is removed, the "
                "earlier checkpoints are as they were: check the disk, or choose another place "
                "with --run"
            ) from error
        except UserError:
            remove_unfinished(self.path.parent, self.path.name)
            raise


def begin(
    folder: Path, step: int, state: Any, identity: Identity, facts: Mapping[str, Any] | None = None
) -> Unsealed:
    """Copies a state to the hosts' memory, to be written while training goes on.

    Every process comes here. Arguments as for `save`; nothing of that step may be there.

    Raises:
        UserError: when the folder cannot be made, or the state does not fit on the disk.
    """
    path = absolute(folder) / str(step)
    leaves = _flatten(state)[0]
    with hosts.together(), disk_errors(path):
        if hosts.is_primary():
            make_folder(folder)
            size = sum(leaf.nbytes for leaf in leaves.values())
            if not in_bucket(folder) and shutil.disk_usage(folder).free < size:
                # said before Orbax begins, which reports it in pages of nested tracebacks
                raise OSError(errno.ENOSPC, f"{size:,} bytes do not fit")
    about = {**dataclasses.asdict(identity), "step": step, **(facts or {})}
    compared = hosts.is_primary() and not in_bucket(path)
    # Several processes each write what their devices hold; one alone writes what it can see. A CPU
    # does not reuse the memory of arrays that NumPy looks at, so nothing is copied twice.
    if hosts.are_many():
        with disk_errors(path):
            writes = begin_to_write(path, leaves, about)
        kept = {name: held_array(leaf, compared=compared) for name, leaf in leaves.items()}
        return Unsealed(path, kept, writes)
    for leaf in leaves.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    arrays = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    kept = {name: held_array(array, compared=compared) for name, array in arrays.items()}
    return Unsealed(path, kept, lambda: write_arrays(path, arrays, about))


def prune(folder: Path, keep: int, is_scheduled: Callable[[int], bool]) -> None:
    """Removes older checkpoints; the primary comes here.

    Those of the schedule are kept while they are among its latest `keep`; others, which time or a
    signal asked for, until there is a newer one. So the checkpoints of a run that is done do not
    depend on what happened to it.

    Args:
        folder: of the run's checkpoints.
        keep: how many of the schedule are kept.
        is_scheduled: whether the configuration asks for a checkpoint at a step.
    """
    saved = steps_saved(folder)
    kept = {*[step for step in saved if is_scheduled(step)][-keep:], *saved[-1:]}
    _remove(folder, [step for step in saved if step not in kept])


def forget(folder: Path, after: int) -> None:
    """Removes the checkpoints of later steps, whose metrics are about to be written again.

    What killed processes left of a checkpoint goes too. Every process comes here.
    """
    with hosts.together():
        if hosts.is_primary():
            with disk_errors(folder):
                _remove(folder, [step for step in steps_saved(folder) if step > after])
                remove_unfinished(folder)


def _remove(folder: Path, steps: Sequence[int]) -> None:
    with reached(folder):
        for step in steps:
            # first what makes it whole: a kill in mid-removal must leave no half of one
            (folder / str(step) / CHECKSUMS).unlink()
            remove_tree(folder / str(step))


def restore(folder: Path, step: int, like: Tree, identity: Identity, *, part: bool = False) -> Tree:
    """Reads a state of the structure, shapes and shardings of `like` (arrays or shapes).

    Args:
        folder: of the run's checkpoints.
        step: of the one to read.
        like: the state.
        identity: what it must belong to.
        part: whether the checkpoint may hold more than `like`, which is then left unread.

    Raises:
        UserError: for a checkpoint that is damaged, or belongs to another run or step.
    """
    path = absolute(folder) / str(step)
    _verify(path)
    found = read_facts(folder, step)
    identity.check(found, path)
    if found.get("step") != step:
        raise UserError(
            f"{path}: holds the checkpoint of step {found.get('step')}; give that folder its own "
            "name back, or remove it"
        )
    shapes, structure = _flatten(like)
    wanted = {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding or _one_device())
        for name, leaf in shapes.items()
    }
    with reached(path):
        arrays = read_arrays(path, wanted, part=part)
    return jax.tree.unflatten(structure, [arrays[name] for name in shapes])


def remove_unfinished(folder: Path, step: str = _STEP) -> None:
    """Drops what a killed process left, of one step or all: folders that are not whole."""
    ours = re.compile(rf"({step})(\.orbax-checkpoint-tmp.*|\.removed)?")
    whole = {str(step) for step in steps_saved(folder)}
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if ours.fullmatch(path.name) and path.is_dir() and path.name not in whole:
            remove_tree(path)


def _flatten(tree: Any) -> tuple[dict[str, Any], Any]:
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}, structure


def _one_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def _verify(path: Path) -> None:
    """Raises a UserError for a checkpoint whose files are not those that were written.

    In a bucket one process looks, for all.
    """
    # Checked here because Orbax reads in parallel and reports damage in pages of nested tracebacks.
    try:
        if not in_bucket(path):
            verify(path)
            return
        with hosts.together():
            if hosts.is_primary():
                verify(path)
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def _damaged(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: checkpoint is damaged ({what}); remove that folder to go on from the checkpoint "
        "before it, or start again with another --run"
    )
