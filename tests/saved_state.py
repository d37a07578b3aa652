"""The whole state of a run's latest checkpoint, optimizer included: what training goes on from."""

import dataclasses

import jax

from calibtrain.parallel.mesh import Layout
from calibtrain.runs.folder import RunFolder
from calibtrain.runs.latest_checkpoint import latest_step, restore_latest
from calibtrain.temperature import network_of
from calibtrain.training.optimizer import optimizer_of
from calibtrain.training.state import TrainState, initial_state
from calibtrain.training.terms import objective_of


def load_state(run: RunFolder, layout: Layout | None = None) -> tuple[int, TrainState]:
    """Returns the step of a run's latest checkpoint, and its state.

    An imported model has no optimizer state: it is ().

    Args:
        run: the folder.
        layout: of the devices that are to hold it; None means one device.

    Raises:
        UserError: where there is none, or it is damaged or belongs to another run.
    """
    config, vocab_size = run.read_config(), run.read_tokenizer().vocab_size
    imported = latest_step(run) == 0
    network = network_of(config, vocab_size)
    optimizer = optimizer_of(config, steps=1)  # only the shape of its state matters
    objective = objective_of(config, vocab_size)
    shapes = jax.eval_shape(lambda: initial_state(network, optimizer, config.seed, objective))
    if imported:
        shapes = dataclasses.replace(shapes, opt_state=())
    return restore_latest(run, shapes, layout, part=imported)
