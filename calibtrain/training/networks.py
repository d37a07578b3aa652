"""The network of a configuration: the model, its adapters if it is fine-tuned, its head if any."""

import dataclasses

from calibtrain.config import Config
from calibtrain.models import Network, build
from calibtrain.models.adapter import LowRank
from calibtrain.temperature import tempered


def network_of(config: Config, vocab_size: int) -> Network:
    """The network of a run."""
    network = build(config.model, vocab_size)
    if config.finetune is not None and config.finetune.lora is not None:
        network = dataclasses.replace(network, adapter=LowRank(config.finetune.lora))
    return tempered(network, config.temperature)
