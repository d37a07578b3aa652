"""Analytic FLOPs of a model: what a token costs, the vocabulary term exactly."""

from calibtrain.config import ModelConfig


def forward_flops(config: ModelConfig, vocab_size: int, context: int) -> float:
    """FLOPs of one forward pass, a token, averaged over a full context.

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
    """FLOPs of one training step, a token: the backward pass costs twice the forward pass."""
    return 3 * forward_flops(config, vocab_size, context)
