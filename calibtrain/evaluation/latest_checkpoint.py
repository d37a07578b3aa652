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
from calibtrain.temperature.saved_head import SavedHead, read_head
from calibtrain.training.networks import network_of
from calibtrain.training.optimizer import optimizer_of
from calibtrain.training.state import TrainState, initial_state
from calibtrain.training.terms import objective_of


def fitted_head(run: RunFolder, config: Config, name: str) -> SavedHead:
    """A head that was fitted to a run's latest checkpoint.

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


def checkpoint_facts(run: RunFolder, config: Config) -> dict[str, Any]:
    """Which checkpoint of a run is its latest: what a head that is fitted to it is bound to.

    Raises:
        UserError: where there is none.
    """
    step = latest_step(run)
    return {
        "step": step,
        "config": config_hash(config),
        "sha256": checkpoint.fingerprint(run.checkpoints, step),
    }


def another_checkpoint(head: SavedHead, latest: Mapping[str, Any]) -> str:
    """Which other checkpoint a head was fitted to than a run's latest; empty: to that one."""
    found = head.about.get("checkpoint", {})
    for key, value in latest.items():
        if found.get(key) != value:
            return f"another checkpoint ({key} {found.get(key)}; the run's latest has {value})"
    return ""


def latest_step(run: RunFolder) -> int:
    """The step of a run's latest checkpoint.

    Raises:
        UserError: where there is none.
    """
    saved = checkpoint.steps_saved(run.checkpoints)
    if not saved:
        raise UserError(f"{run.path}: has no checkpoint yet; train it first: calibtrain train")
    return saved[-1]


def load_state(run: RunFolder, layout: Layout | None = None) -> tuple[int, TrainState]:
    """The latest checkpoint of a run, and its step. What was imported has no optimizer's state: ().

    Args:
        run: the folder.
        layout: of the devices that are to hold it; None means one device.

    Raises:
        UserError: where there is none, or it is damaged or belongs to another run.
    """
    return _load(run, layout, part=latest_step(run) == 0)


def load_params(run: RunFolder, layout: Layout | None = None) -> tuple[int, Params]:
    """The parameters of a run's latest checkpoint, and its step: the rest of it is left unread.

    Args:
        run: as for `load_state`, as is the other argument.

    Raises:
        UserError: as `load_state` does.
    """
    step, state = _load(run, layout, part=True)
    return step, state.params


def load_merged_params(run: RunFolder) -> tuple[int, Params]:
    """As `load_params` on one device, with the adapters of a fine-tuning merged into its matrices.

    They are then the parameters of the model alone, as another fine-tuning or an export takes it.

    Raises:
        UserError: as `load_state` does.
    """
    step, params = load_params(run)
    adapter = network_of(run.read_config(), run.read_tokenizer().vocab_size).adapter
    if adapter is None:
        return step, params
    body = {name: part for name, part in params.items() if name != ADAPTER}
    return step, adapter.merged(body, params[ADAPTER])


def _load(run: RunFolder, layout: Layout | None, *, part: bool) -> tuple[int, TrainState]:
    """The latest checkpoint: the whole of it, or all but the optimizer's state."""
    config = run.read_config()
    tokenizer = run.read_tokenizer()
    step = latest_step(run)
    network = network_of(config, tokenizer.vocab_size)
    optimizer = optimizer_of(config, steps=1)  # only the shape of its state matters
    objective = objective_of(config, tokenizer.vocab_size)
    shapes = jax.eval_shape(lambda: initial_state(network, optimizer, config.seed, objective))
    if part:
        shapes = dataclasses.replace(shapes, opt_state=())
    if layout is not None and layout.devices > 1:
        shapes = jax.tree.map(
            lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
            shapes,
            layout.state_shardings(shapes),
        )
    identity = checkpoint.Identity(config_hash(config), tokenizer.hash, corpus=None)
    return step, checkpoint.restore(run.checkpoints, step, shapes, identity, part=part)
