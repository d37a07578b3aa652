"""How many tokens are multiplied by the unembedding at once, and how they are cut into chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.readout.token_stats import MASKED

CHUNK_ELEMENTS = {"cpu": 2**22, "gpu": 2**28}
"""Logits held at once by default, by platform: on a CPU as many as its caches nearly hold, on
a GPU 1 GiB, as with each chunk it reads and writes the whole gradient of the unembedding."""
CHUNK_ELEMENTS_ELSEWHERE = 2**26
"""On other accelerators, which small products leave mostly idle: 256 MiB."""

LEAST_CHUNK = 128
"""Tokens, however large the vocabulary: every chunk passes over the whole unembedding."""


def default_chunk(vocab: int, platform: str) -> int:
    """Returns how many tokens are multiplied at once on a platform ("cpu", "gpu", "tpu")."""
    elements = CHUNK_ELEMENTS.get(platform, CHUNK_ELEMENTS_ELSEWHERE)
    return max(LEAST_CHUNK, elements // vocab)


@dataclasses.dataclass(frozen=True)
class Chunks:
    """How tokens of any leading shape are cut into equal chunks, the last one padded.

    Attributes:
        shape: of the tokens.
        count: tokens.
        chunk: tokens of each chunk.
        chunks: how many there are.
        vocab_size: logits from here on only pad the vocabulary.
    """

    shape: tuple[int, ...]
    count: int
    chunk: int
    chunks: int
    vocab_size: int

    @classmethod
    def of(
        cls, hidden: Array, unembedding: Array, labels: Array, vocab_size: Any, chunk: Any
    ) -> Chunks:
        width, padded_vocab = unembedding.shape
        shape = hidden.shape[:-1]
        if hidden.shape[-1] != width or labels.shape != shape:
            raise ValueError(
                f"hidden {hidden.shape}, unembedding {unembedding.shape} and labels "
                f"{labels.shape} do not fit: wanted [*tokens, width], [width, vocab], [*tokens]"
            )
        vocab_size = padded_vocab if vocab_size is None else vocab_size
        if not 0 < vocab_size <= padded_vocab:
            raise ValueError(f"vocab_size {vocab_size} must be in 1..{padded_vocab}")
        if chunk is None:
            chunk = default_chunk(padded_vocab, jax.default_backend())
        chunk = max(1, min(chunk, labels.size))
        return cls(shape, labels.size, chunk, -(-labels.size // chunk), vocab_size)

    def masked(self, logits: Array) -> Array:
        """Returns logits that are `MASKED` where they only pad the vocabulary."""
        if self.vocab_size == logits.shape[-1]:
            return logits
        return jnp.where(jnp.arange(logits.shape[-1]) < self.vocab_size, logits, MASKED)

    def split(self, array: Any) -> Any:
        """Cuts [*tokens, ...] into [chunks, chunk, ...]; None stays None."""
        if array is None:
            return None
        flat = array.reshape(self.count, *array.shape[len(self.shape) :])
        padding = [(0, self.chunks * self.chunk - self.count)] + [(0, 0)] * (flat.ndim - 1)
        return jnp.pad(flat, padding).reshape(self.chunks, self.chunk, *flat.shape[1:])

    def join(self, tree: Any) -> Any:
        """Joins [chunks, chunk, ...] to [*tokens, ...], for every array of a tree."""

        def one(array: Array) -> Array:
            flat = array.reshape(self.chunks * self.chunk, *array.shape[2:])[: self.count]
            return flat.reshape(*self.shape, *array.shape[2:])

        return jax.tree.map(one, tree)

    def scan(self, body: Callable[[Any, Any], Any], carry: Any, inputs: Any) -> Any:
        """Runs `lax.scan` over the chunks; a single chunk is computed in place."""
        if self.chunks != 1:
            return jax.lax.scan(body, carry, inputs)
        carry, out = body(carry, jax.tree.map(lambda array: array[0], inputs))
        return carry, jax.tree.map(lambda array: array[None], out)
