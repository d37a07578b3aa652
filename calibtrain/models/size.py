"""What a model costs: its parameters by role, and analytic FLOPs per token."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from calibtrain.config import ModelConfig
from calibtrain.models import build


@dataclasses.dataclass(frozen=True)
class ParameterCount:
    """Parameters by role. A tied table counts as embedding, and as no unembedding."""

    embedding: int
    unembedding: int
    body: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.unembedding + self.body


def count_parameters(config: ModelConfig, vocab_size: int) -> ParameterCount:
    """Counts a model's parameters by role, without making them."""
    network = build(config, vocab_size)
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    table = shapes.pop("vocabulary")
    sizes = {name: int(np.prod(leaf.shape)) for name, leaf in table.items() if leaf is not None}
    body = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))
    return ParameterCount(sizes["embedding"], sizes.get("unembedding", 0), body)


def forward_flops(config: ModelConfig, vocab_size: int, context: int) -> float:
    """Returns FLOPs of one forward pass per token, averaged over a full context.

    A multiply-add counts as two. Attention is causal: a token sees (context + 1) / 2 others on
    average. Norms, activations and the embedding's look-up are left out.
    """
    width, layers = config.width, config.depth
    if config.kind == "lstm":
        body = layers * 2.0 * (8 * width * width + width * width)
    else:
        size = config.size_of_head
        heads_width = config.heads * size
        kv_width = (config.kv_heads or config.heads) * size
        projections = 2 * width * (2 * heads_width + 2 * kv_width)
        attention = 2 * 2 * heads_width * (context + 1) / 2
        matrices = 3 if config.mlp == "swiglu" else 2
        body = layers * (projections + attention + 2 * matrices * width * config.mlp_width)
    return body + 2 * width * vocab_size


def training_flops(config: ModelConfig, vocab_size: int, context: int) -> float:
    """Returns FLOPs of one training step per token: the backward pass costs twice the forward."""
    return 3 * forward_flops(config, vocab_size, context)
