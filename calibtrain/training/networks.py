"""The network of a configuration: the model, its adapters if it is fine-tuned, its head if any."""

import dataclasses
import math
from typing import Any

import jax

from calibtrain.config import Config
from calibtrain.models import ADAPTER, Network, build
from calibtrain.models.adapter import LowRank
from calibtrain.temperature import tempered


def network_of(config: Config, vocab_size: int) -> Network:
    """The network of a run."""
    network = build(config.model, vocab_size)
    if config.finetune is not None and config.finetune.lora is not None:
        network = dataclasses.replace(network, adapter=LowRank(config.finetune.lora))
    return tempered(network, config.temperature)


def trained_parameters(network: Network) -> dict[str, Any]:
    """What a fine-tuning trains: how many parameters, and which linear maps have an adapter."""
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    trained = shapes if network.adapter is None else shapes[ADAPTER]
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(trained))
    if network.adapter is None:
        return {"parameters": count}
    there = {path.split(".")[-2] for path in trained}
    return {"parameters": count, "maps": [m for m in network.adapter.config.maps if m in there]}
