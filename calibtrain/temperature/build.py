"""From a configuration to its network: the model, adapters if it is fine-tuned, a head if any."""

from __future__ import annotations

import dataclasses

from calibtrain.config import Config, ModelConfig, TemperatureConfig
from calibtrain.config.temperature import (
    AdaptiveTemperature,
    GlobalTemperature,
    LinearTemperature,
    LowRankMatrixScaling,
    MatrixScaling,
    MLPTemperature,
    NoTemperature,
    PositionTemperature,
    ThermometerTemperature,
    VectorScaling,
    attention_heads,
    check_fits,
)
from calibtrain.errors import UserError
from calibtrain.models import Network, TemperatureHead, build
from calibtrain.models.adapter import LowRank
from calibtrain.temperature.adaptive import Adaptive
from calibtrain.temperature.affine import AffineHead
from calibtrain.temperature.mixing import FullMixing, LowRankMixing
from calibtrain.temperature.pointwise import MLP, Global, Linear, Pointwise
from calibtrain.temperature.position import Position
from calibtrain.temperature.thermometer import Thermometer
from calibtrain.temperature.token_head import LogTemperature, TokenHead


def network_of(config: Config, vocab_size: int) -> Network:
    """Returns the network of a run.

    Raises:
        UserError: for a head that a vocabulary of this size cannot have.
    """
    try:
        check_fits(config.temperature, config.model, vocab_size)
    except ValueError as error:
        raise UserError(str(error)) from None
    network = build(config.model, vocab_size)
    if config.finetune is not None and config.finetune.lora is not None:
        network = dataclasses.replace(network, adapter=LowRank(config.finetune.lora))
    return tempered(network, config.temperature)


def tempered(network: Network, config: TemperatureConfig) -> Network:
    """Returns the network with the head of a configuration, or as it is if that has none."""
    return dataclasses.replace(network, head=make_head(config, network.config, network.vocab_size))


def make_head(
    config: TemperatureConfig, model: ModelConfig, vocab_size: int
) -> TemperatureHead | None:
    """Returns the head of a configuration; `config.temperature.check_fits` says if a model can."""
    if isinstance(config, NoTemperature):
        return None
    match config:
        case VectorScaling():
            return AffineHead(vocab_size)
        case MatrixScaling():
            full = FullMixing(vocab_size)
            return AffineHead(vocab_size, config.kind, full, config.off_diagonal_penalty)
        case LowRankMatrixScaling():
            low = LowRankMixing(vocab_size, config.rank)
            return AffineHead(vocab_size, config.kind, low, config.off_diagonal_penalty)
    return TokenHead(config.kind, _source(config, model))


def _source(config: TemperatureConfig, model: ModelConfig) -> LogTemperature:
    width = model.width
    match config:
        case GlobalTemperature():
            return Pointwise(Global(config.limit))
        case LinearTemperature():
            return Pointwise(Linear(width, config.limit))
        case MLPTemperature():
            return Pointwise(MLP(width, config.hidden or width, config.limit))
        case PositionTemperature():
            return Position(config.limit)
        case ThermometerTemperature():
            return Thermometer(width, config.hidden or width, config.limit)
        case AdaptiveTemperature():
            return Adaptive(_layer(config, model), config.limit)
    raise AssertionError(config)


def _layer(config: AdaptiveTemperature, model: ModelConfig) -> ModelConfig:
    """The configuration of a model with such decoder layers as the head has one of."""
    heads = attention_heads(config, model)
    same = model.kind == "transformer" and heads == model.heads
    return model.model_copy(
        update={
            "kind": "transformer",
            "depth": 1,
            "heads": heads,
            "kv_heads": model.kv_heads if same else None,
        }
    )
