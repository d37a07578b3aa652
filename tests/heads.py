"""Heads of every kind for a small model, with parameters away from those they begin with."""

import functools
from typing import Any

import jax
import numpy as np

from calibtrain.config import HEADS, Config, ModelConfig, validate
from calibtrain.config.temperature import AFFINE
from calibtrain.models import TEMPERATURE, Network, Params, build
from calibtrain.temperature import tempered

KINDS = tuple(HEADS)
BY_TOKEN = tuple(kind for kind in KINDS if kind not in AFFINE)
"""Those that give a temperature."""
MODELS = {
    "transformer": ModelConfig(width=16, depth=1, heads=2, kv_heads=1),
    "lstm": ModelConfig(kind="lstm", width=16, depth=1),
}
VOCAB = 23


def head_config(kind: str, **options: Any) -> Any:
    """The section of a head, read as a configuration is."""
    return validate(Config, {"temperature": {"kind": kind, **options}}).temperature


def with_head(kind: str, model: str = "transformer", **options: Any) -> Network:
    return tempered(build(MODELS[model], VOCAB), head_config(kind, **options))


def stirred(params: Params, scale: float = 0.3, seed: int = 5) -> Params:
    """The same with noise in the head's parameters."""
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(lambda x: x + scale * rng.normal(size=x.shape), params[TEMPERATURE])
    return {**params, TEMPERATURE: jax.tree.map(lambda x: x.astype(np.float32), moved)}


@functools.cache
def body(model: str = "transformer") -> Params:
    """Parameters of the model without a head."""
    return build(MODELS[model], VOCAB).init(jax.random.key(0))


def params_of(network: Network, model: str = "transformer") -> Params:
    """The same with those a head begins with."""
    assert network.head is not None
    return {**body(model), TEMPERATURE: network.head.init(jax.random.key(1))}
