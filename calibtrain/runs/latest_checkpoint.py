"""The latest checkpoint of a run: which it is, its parameters, and the heads fitted to it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from calibtrain.config import Config, config_hash
from calibtrain.errors import UserError
from calibtrain.models import ADAPTER, Params
from calibtrain.parallel.mesh import Layout
from calibtrain.runs import checkpoint
from calibtrain.runs.folder import RunFolder
from calibtrain.temperature import network_of
from calibtrain.temperature.saved_head import SavedHead, read_head


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Parameters:
    """The part of a training state that a model needs, under the name that it has there."""

    params: Params


def latest_step(run: RunFolder) -> int:
    """Returns the step of a run's latest checkpoint.

    Raises:
        UserError: where there is none.
    """
    saved = checkpoint.steps_saved(run.checkpoints)
    if not saved:
        raise UserError(f"{run.path}: has no checkpoint yet; train it first: calibtrain train")
    return saved[-1]


def load_params(run: RunFolder, layout: Layout | None = None) -> tuple[int, Params]:
    """Returns the step of a run's latest checkpoint and its parameters; the rest is not read.

    Args:
        run: the folder.
        layout: of the devices that are to hold them; None means one device.

    Raises:
        UserError: where there is none, or it is damaged or belongs to another run.
    """
    network = network_of(run.read_config(), run.read_tokenizer().vocab_size)
    wanted = _Parameters(jax.eval_shape(network.init, jax.random.key(0)))
    step, found = restore_latest(run, wanted, layout, part=True)
    return step, found.params


def load_merged_params(run: RunFolder) -> tuple[int, Params]:
    """Returns what `load_params` does, with the adapters of a fine-tuning merged into its matrices.

    They are then the parameters of the model alone, as another fine-tuning or an export takes it.

    Raises:
        UserError: as `load_params` does.
    """
    step, params = load_params(run)
    adapter = network_of(run.read_config(), run.read_tokenizer().vocab_size).adapter
    if adapter is None:
        return step, params
    body = {name: part for name, part in params.items() if name != ADAPTER}
    return step, adapter.merged(body, params[ADAPTER])


def restore_latest(
    run: RunFolder, shapes: checkpoint.Tree, layout: Layout | None = None, *, part: bool
) -> tuple[int, checkpoint.Tree]:
    """Returns the step of a run's latest checkpoint, and a state of the structure of `shapes`.

    Args:
        run: the folder.
        shapes: of the state.
        layout: of the devices that are to hold it; None means one device.
        part: whether the checkpoint may hold more, which is then left unread.

    Raises:
        UserError: as `load_params` does.
    """
    step = latest_step(run)
    if layout is not None and layout.devices > 1:
        shapes = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            layout.state_shardings(shapes),
        )
    identity = checkpoint.Identity(
        config_hash(run.read_config()), run.read_tokenizer().hash, corpus=None
    )
    return step, checkpoint.restore(run.checkpoints, step, shapes, identity, part=part)


def checkpoint_facts(run: RunFolder, config: Config) -> dict[str, Any]:
    """Returns which checkpoint is a run's latest: what a head that is fitted to it is bound to.

    Raises:
        UserError: where there is none.
    """
    step = latest_step(run)
    return {
        "step": step,
        "config": config_hash(config),
        "sha256": checkpoint.fingerprint(run.checkpoints, step),
    }


def fitted_head(run: RunFolder, config: Config, name: str) -> SavedHead:
    """Returns a head that was fitted to a run's latest checkpoint.

    Raises:
        UserError: where there is none of that name, or it was fitted to another checkpoint.
    """
    head = read_head(run.heads, name)
    if other := another_checkpoint(head, checkpoint_facts(run, config)):
        raise UserError(
            f"--temperature: {name} was fitted to {other}; fit it again: calibtrain temperature "
            f"fit {run.path} --head {head.config.kind} --name {name} --replace"
        )
    return head


def another_checkpoint(head: SavedHead, latest: Mapping[str, Any]) -> str:
    """Returns which checkpoint a head was fitted to, if it is not the run's latest; else ''.

    Args:
        head: of the run.
        latest: its `checkpoint_facts`.
    """
    found = head.about.get("checkpoint", {})
    for key, value in latest.items():
        if found.get(key) != value:
            return f"another checkpoint ({key} {found.get(key)}; the run's latest has {value})"
    return ""
