"""Hidden states of a model that is right but for a factor on its logits, which the test knows."""

from collections.abc import Callable

import numpy as np

from calibtrain.config import ModelConfig
from calibtrain.fitting.hidden_states import HiddenStates
from calibtrain.fitting.output_layer import OutputLayer

MODEL = ModelConfig(width=8, depth=1, heads=1)
VOCAB = 12

Factor = Callable[[np.ndarray], np.ndarray]
"""True states [rows, time, width] -> what the model's logits are multiplied by [rows, time]."""


def make(
    rows: int, time: int, factor: Factor, seed: int, sharpness: float = 1.0
) -> tuple[HiddenStates, OutputLayer, np.ndarray]:
    """The states, the unembedding, and the true logits [rows, time, vocab] in float64."""
    unembedding = np.random.default_rng(99).normal(size=(MODEL.width, VOCAB)) * sharpness
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(rows, time, MODEL.width)).astype(np.float32)
    logits = hidden.astype(np.float64) @ unembedding.astype(np.float32)
    noise = -np.log(-np.log(rng.uniform(1e-12, 1, logits.shape)))
    labels = np.argmax(logits + noise, axis=-1).astype(np.int32)  # drawn from the softmax
    seen = (hidden * factor(hidden)[..., None]).astype(np.float32)
    places = np.zeros((rows, time), np.int32)
    documents = places + np.arange(rows, dtype=np.int32)[:, None]
    states = HiddenStates(seen, labels, places, np.ones((rows, time), bool), documents)
    return states, OutputLayer(unembedding.astype(np.float32), VOCAB), logits


def nll(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean nll in float64."""
    top = logits.max(-1, keepdims=True)
    normal = top[..., 0] + np.log(np.exp(logits - top).sum(-1))
    return float((normal - np.take_along_axis(logits, labels[..., None], -1)[..., 0]).mean())
