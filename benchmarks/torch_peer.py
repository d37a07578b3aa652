"""The same model in PyTorch: eager or compiled, flash attention, fused AdamW."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from calibtrain.config import ModelConfig


class _Block(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        width, self.heads = config.width, config.heads
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))
        self.head_norms = nn.ModuleList(nn.RMSNorm(width // config.heads) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, config.mlp_width, bias=False)
        self.up = nn.Linear(width, config.mlp_width, bias=False)
        self.down = nn.Linear(config.mlp_width, width, bias=False)

    def forward(self, x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
        def heads(y: torch.Tensor) -> torch.Tensor:
            return y.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

        def rotate(y: torch.Tensor) -> torch.Tensor:
            first, second = y.chunk(2, dim=-1)
            turned = (first * cosine - second * sine, second * cosine + first * sine)
            return torch.cat(turned, dim=-1).to(y.dtype)

        y = self.norms[0](x)
        query, key, value = map(heads, self.qkv(y).chunk(3, dim=-1))
        query, key = rotate(self.head_norms[0](query)), rotate(self.head_norms[1](key))
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        y = self.norms[1](x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class _Model(nn.Module):
    def __init__(self, config: ModelConfig, vocab: int, time: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab, config.width)
        nn.init.normal_(self.embedding.weight, std=config.width**-0.5)
        self.scale = config.width**0.5
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.width)
        half = config.width // config.heads // 2
        angle = torch.arange(time)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cosine", angle.cos())
        self.register_buffer("sine", angle.sin())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embedding(tokens) * self.scale
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        return F.linear(self.norm(x), self.embedding.weight)


def make(
    config: ModelConfig,
    vocab: int,
    tokens: np.ndarray,
    *,
    compiled: bool,
    bfloat16: bool,
    pieces: int = 1,
) -> Callable[[], torch.Tensor]:
    """A function that takes one step, of so many micro-batches."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = _Model(config, vocab, tokens.shape[1] - 1).to(device)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ids = torch.tensor(tokens, dtype=torch.long, device=device)
    inputs, labels = ids[:, :-1].contiguous(), ids[:, 1:].reshape(-1)

    parts = list(zip(inputs.chunk(pieces), labels.chunk(pieces), strict=True))

    def run() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=device)
        for some, targets in parts:
            with torch.autocast(device, dtype=torch.bfloat16, enabled=bfloat16):
                logits = forward(some).view(-1, vocab)
            loss = F.cross_entropy(logits.float(), targets) / pieces
            loss.backward()
            total += loss.detach()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return total

    return run


def peak_bytes() -> int | None:
    """The most memory that was held at once, where PyTorch counts it; starts the count anew."""
    if not torch.cuda.is_available():
        return None
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak
