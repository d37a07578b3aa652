"""Checkpoints: a state and what it belongs to, in Orbax folders. The only module that knows Orbax.

A state is saved as a flat mapping from path to array, so that neither Orbax's nor Optax's ideas of
containers can come between two versions. Orbax writes under a temporary name and renames (in a
bucket, it does not); then the checksums of its files are written beside them, and a folder without
those counts as unfinished.
"""

import dataclasses
import errno
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from calibtrain.errors import UserError
from calibtrain.parallel import hosts
from calibtrain.storage.checksums import checksums
from calibtrain.storage.disk import disk_errors, make_folder, write_whole
from calibtrain.storage.json_text import parse_json
from calibtrain.storage.places import absolute, files, in_bucket, reached, remove_tree

Tree = TypeVar("Tree")

CHECKSUMS = "checksums.json"
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
        """Raise a UserError where a checkpoint's identity is not this one."""
        for name, mine in dataclasses.asdict(self).items():
            if mine is not None and found.get(name) != mine:
                raise UserError(
                    f"{path}: was made with another {name} (hash {found.get(name)}, this run has "
                    f"{mine}); use the run folder it belongs to, or another --run"
                )


def read_identity(folder: Path, step: int) -> Identity:
    """What a whole checkpoint belongs to."""
    found = _metadata(absolute(folder) / str(step))
    return Identity(found.get("config", ""), found.get("tokenizer", ""), found.get("corpus"))


def fingerprint(folder: Path, step: int) -> str:
    """SHA-256 of a whole checkpoint's checksums: the same of copies, another of any other."""
    with reached(folder):
        return hashlib.sha256((folder / str(step) / CHECKSUMS).read_bytes()).hexdigest()


def steps_saved(folder: Path) -> list[int]:
    """Steps of the whole checkpoints in a folder, ascending."""
    with reached(folder):
        whole = [path.parent.name for path in folder.glob(f"*/{CHECKSUMS}")]
    return sorted(int(name) for name in whole if re.fullmatch(_STEP, name))


def save(folder: Path, step: int, state: Any, identity: Identity) -> None:
    """Save a state, unless it is there.

    Raises:
        UserError: when the disk is full or may not be written.
    """
    from orbax.checkpoint import v1 as ocp

    path = absolute(folder) / str(step)  # Orbax wants it absolute
    if not hosts.are_many() and step in steps_saved(folder):
        return
    leaves = _flatten(state)[0]
    # Several processes each write what their devices hold; one alone writes what it can see.
    arrays = leaves if hosts.are_many() else {k: np.asarray(leaf) for k, leaf in leaves.items()}
    with disk_errors(path):
        with hosts.together(), disk_errors(path):
            if hosts.is_primary():
                make_folder(folder)
                remove_unfinished(folder)
                size = sum(leaf.nbytes for leaf in leaves.values())
                if not in_bucket(folder) and shutil.disk_usage(folder).free < size:
                    # said before Orbax begins, which reports it in pages of nested tracebacks
                    raise OSError(errno.ENOSPC, f"{size:,} bytes do not fit")
        try:
            about = {**dataclasses.asdict(identity), "step": step}
            ocp.save(path, arrays, custom_metadata=about)
            if hosts.is_primary():
                write_whole(path / CHECKSUMS, json.dumps(_checksums(path)))
        except Exception as error:
            if hosts.is_primary():
                remove_unfinished(folder)
            raise _as_disk_error(error) from error
    hosts.wait("a checkpoint is whole")


def prune(folder: Path, keep: int) -> None:
    """Remove all but the latest `keep` checkpoints."""
    _remove(folder, steps_saved(folder)[:-keep] if hosts.is_primary() else [])


def forget(folder: Path, after: int) -> None:
    """Remove the checkpoints of later steps, whose metrics are about to be written again."""
    _remove(folder, [step for step in steps_saved(folder) if step > after])


def _remove(folder: Path, steps: Sequence[int]) -> None:
    if hosts.is_primary():
        with reached(folder):
            for step in steps:
                # first what makes it whole: a kill in mid-removal must leave no half of one
                (folder / str(step) / CHECKSUMS).unlink()
                remove_tree(folder / str(step))
    hosts.wait("checkpoints are gone")


def restore(folder: Path, step: int, like: Tree, identity: Identity, *, part: bool = False) -> Tree:
    """Read a state of the structure, shapes and shardings of `like` (arrays or shapes).

    Args:
        folder: of the run's checkpoints.
        step: of the one to read.
        like: the state.
        identity: what it must belong to.
        part: whether the checkpoint may hold more than `like`, which is then left unread.

    Raises:
        UserError: for a checkpoint that is damaged, or belongs to another run or step.
    """
    from orbax.checkpoint import v1 as ocp

    path = absolute(folder) / str(step)  # Orbax wants it absolute
    _verify(path)
    found = _metadata(path)
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
    context = ocp.Context()
    context.pytree.loading.partial_load = part
    with context:
        arrays = ocp.load(path, wanted)
    return jax.tree.unflatten(structure, [arrays[name] for name in shapes])


def remove_unfinished(folder: Path) -> None:
    """Drop what a killed process left: temporary folders, and folders on their way out."""
    ours = re.compile(rf"({_STEP})(\.orbax-checkpoint-tmp.*|\.removed)?")
    whole = {str(step) for step in steps_saved(folder)}
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if ours.fullmatch(path.name) and path.is_dir() and path.name not in whole:
            remove_tree(path)


def _metadata(path: Path) -> dict[str, Any]:
    from orbax.checkpoint import v1 as ocp

    return ocp.metadata(path).custom_metadata or {}


def _flatten(tree: Any) -> tuple[dict[str, Any], Any]:
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}, structure


def _one_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def _as_disk_error(error: Exception) -> Exception:
    """The OSError inside what Orbax or TensorStore raise for a disk that cannot take more."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            return seen
        seen = seen.__cause__ or seen.__context__
    text = str(error)
    for words, number in (
        ("No space left", errno.ENOSPC),
        ("ENOSPC", errno.ENOSPC),
        ("Read-only file system", errno.EROFS),
        ("Permission denied", errno.EACCES),
        ("quota exceeded", errno.EDQUOT),
        ("File too large", errno.EFBIG),
    ):
        if words in text:
            return OSError(number, text.splitlines()[0])
    return error


def _checksums(path: Path) -> dict[str, str]:
    """SHA-256 of every file of a checkpoint, by its relative path."""
    return checksums(path, (name for name in files(path) if CHECKSUMS not in name))


def _verify(path: Path) -> None:
    """Raise a UserError for a checkpoint whose files are not those that were written."""
    # Checked here because Orbax reads in parallel and reports damage in pages of nested tracebacks.
    try:
        wanted = parse_json((path / CHECKSUMS).read_text("utf-8"))
        found = _checksums(path)
        bad = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        bad = [f"{CHECKSUMS} ({error})"]
    if bad:
        raise UserError(
            f"{path}: checkpoint is damaged ({bad[0]} is missing, cut short or changed); remove "
            "that folder to go on from the checkpoint before it, or start again with another --run"
        )
