"""A decoder-only transformer: pre-norm, rotary positions, grouped-query attention, gated MLP."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from calibtrain.config import ModelConfig
from calibtrain.models.attention import attend, attend_to_cache, choose
from calibtrain.models.layers import (
    Linear,
    Vocabulary,
    rotary_angles,
    rotary_angles_at,
    rotary_frequencies,
    rotate,
)
from calibtrain.models.norm import RMSNorm
from calibtrain.models.stack import run_layers

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyValueCache:
    """The keys and values of sequences that a transformer decodes, one sequence per row.

    Attributes:
        position: number of tokens read in each row.
        keys: one array per layer; token number t lies at t modulo length. The tokens are the last
            axis, so that their product with queries is read in the order of memory.
        values: likewise, with the tokens before the dimensions.
    """

    position: Int[Array, " rows"]
    keys: tuple[Float[Array, "rows kv_heads size length"], ...]
    values: tuple[Float[Array, "rows kv_heads length size"], ...]


class Attention(nnx.Module):
    """Causal self-attention within a document."""

    def __init__(self, config: ModelConfig, *, mapped: bool, rngs: nnx.Rngs):
        self.mapped = mapped
        self.heads = config.heads
        self.kv_heads = config.kv_heads or config.heads
        self.size = config.size_of_head
        self.implementation = config.attention
        width, bias = config.width, config.qkv_bias
        inner, kv_inner = self.heads * self.size, self.kv_heads * self.size
        self.query = Linear(width, inner, rngs=rngs, bias=bias)
        self.key = Linear(width, kv_inner, rngs=rngs, bias=bias)
        self.value = Linear(width, kv_inner, rngs=rngs, bias=bias)
        self.out = Linear(inner, width, rngs=rngs, scale=(2 * config.depth) ** -0.5)
        self.query_norm = RMSNorm(self.size, config.norm_epsilon) if config.qk_norm else None
        self.key_norm = RMSNorm(self.size, config.norm_epsilon) if config.qk_norm else None

    def __call__(
        self,
        x: Float[Array, "batch time width"],
        angles: Float[Array, "2 time size"],
        segments: Int[Array, "batch time"],
    ) -> Float[Array, "batch time width"]:
        return self.prefill(x, angles, segments)[0]

    def prefill(
        self,
        x: Float[Array, "batch time width"],
        angles: Float[Array, "2 time size"],
        segments: Int[Array, "batch time"],
    ) -> tuple[Float[Array, "batch time width"], Array, Array]:
        """Returns the output, and keys and values [batch, time, kv_heads, size] to be cached."""
        query, key, value = self.project(x, angles)
        chosen: str = self.implementation
        if chosen == "auto":
            chosen = choose(jax.default_backend(), x.dtype, self.size, x.shape[1])
        seen = attend(query, key, value, segments, chosen, mapped=self.mapped)
        return self.out(seen.reshape(*x.shape[:2], -1)), key, value

    def project(
        self, x: Float[Array, "batch time width"], angles: Float[Array, "2 time size"]
    ) -> tuple[Array, Array, Array]:
        """Returns queries, keys and values [batch, time, heads, size]; the first two rotated."""
        shape = x.shape[:2]
        query = self.query(x).reshape(*shape, self.heads, self.size)
        key = self.key(x).reshape(*shape, self.kv_heads, self.size)
        value = self.value(x).reshape(*shape, self.kv_heads, self.size)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        return rotate(query, angles), rotate(key, angles), value

    def empty_cache(self, rows: int, length: int, dtype: Any) -> tuple[Array, Array]:
        """Returns keys and values of `length` places, of which none is filled."""
        nothing = jnp.zeros((rows, 0, self.kv_heads, self.size), dtype)
        return cached(nothing, nothing, length)

    def decode(
        self,
        x: Float[Array, "rows width"],
        angles: Float[Array, "2 rows size"],
        position: Int[Array, " rows"],
        keys: Float[Array, "rows kv_heads size length"],
        values: Float[Array, "rows kv_heads length size"],
    ) -> tuple[Float[Array, "rows width"], Array, Array]:
        """Reads the next token of each row; returns output, keys and values with it."""
        (query,), (key,), (value,) = self.project(x[None], angles)  # rows take the axis of time
        row, place = jnp.arange(len(x)), position % values.shape[2]
        keys = keys.at[row, :, :, place].set(key)
        values = values.at[row, :, place].set(value)
        seen = attend_to_cache(query, keys, values, position)
        return self.out(seen.reshape(len(x), -1)), keys, values


class FeedForward(nnx.Module):
    """SwiGLU (Shazeer 2020), or two linear maps with a GELU in between."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        inner = config.mlp_width
        self.gate = Linear(config.width, inner, rngs=rngs) if config.mlp == "swiglu" else None
        self.up = Linear(config.width, inner, rngs=rngs)
        self.down = Linear(inner, config.width, rngs=rngs, scale=(2 * config.depth) ** -0.5)

    def __call__(self, x: Float[Array, "batch time width"]) -> Float[Array, "batch time width"]:
        if self.gate is None:
            return self.down(jax.nn.gelu(self.up(x)))
        return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


class Block(nnx.Module):
    """A layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, *, mapped: bool, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.width, config.norm_epsilon)
        self.attention = Attention(config, mapped=mapped, rngs=rngs)
        self.mlp_norm = RMSNorm(config.width, config.norm_epsilon)
        self.mlp = FeedForward(config, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "batch time width"],
        angles: Float[Array, "2 time size"],
        segments: Int[Array, "batch time"],
    ) -> Float[Array, "batch time width"]:
        return self.prefill(x, angles, segments)[0]

    def prefill(
        self,
        x: Float[Array, "batch time width"],
        angles: Float[Array, "2 time size"],
        segments: Int[Array, "batch time"],
    ) -> tuple[Float[Array, "batch time width"], Array, Array]:
        """Returns the output, and keys and values [batch, time, kv_heads, size] to be cached."""
        seen, key, value = self.attention.prefill(self.attention_norm(x), angles, segments)
        x = x + seen
        return x + self.mlp(self.mlp_norm(x)), key, value

    def decode(self, x: Float[Array, "rows width"], *state: Array) -> tuple[Array, Array, Array]:
        """Reads the next token of each row; `state` is as for `Attention.decode`."""
        seen, keys, values = self.attention.decode(self.attention_norm(x), *state)
        x = x + seen
        return x + self.mlp(self.mlp_norm(x)), keys, values


class Transformer(nnx.Module):
    """Maps token ids to final hidden states; times `vocabulary.columns()`, those are the logits."""

    def __init__(
        self,
        config: ModelConfig,
        vocab_size: int,
        dtype: jnp.dtype,
        *,
        mapped: bool = False,
        rngs: nnx.Rngs,
    ):
        """Args:
        config: the architecture.
        vocab_size: number of vocabulary entries.
        dtype: that layers compute in.
        mapped: whether calls are traced under `jax.vmap` (see `attention.attend`).
        rngs: of the first parameters.
        """
        self.way, self.remat = config.layers, config.remat
        self.head_size = config.size_of_head
        self.rope_base, self.rope_scaling = config.rope_base, config.rope_scaling
        self.vocabulary = Vocabulary(
            vocab_size,
            config.width,
            dtype,
            tied=config.tied,
            rngs=rngs,
            scaled=config.embedding_scale,
        )
        self.blocks = nnx.List(
            [Block(config, mapped=mapped, rngs=rngs) for _ in range(config.depth)]
        )
        self.final_norm = RMSNorm(config.width, config.norm_epsilon)

    def __call__(
        self, tokens: Int[Array, "batch time"], segments: Int[Array, "batch time"]
    ) -> Float[Array, "batch time width"]:
        """Returns hidden states after the final norm.

        Args:
            tokens: input ids.
            segments: number of the document, within its row, that each token belongs to.
        """
        x = self.vocabulary.embed(tokens)
        angles = rotary_angles(tokens.shape[1], self._frequencies())
        x = run_layers(self.blocks, x, angles, segments, way=self.way, remat=self.remat)
        return self.final_norm(x)

    def _frequencies(self) -> Float[Array, " half"]:
        return rotary_frequencies(self.head_size, self.rope_base, self.rope_scaling)

    def empty_cache(self, rows: int, length: int) -> KeyValueCache:
        """Returns an empty cache for the last `length` tokens of each row."""
        empty = [
            block.attention.empty_cache(rows, length, self.vocabulary.dtype)
            for block in self.blocks
        ]
        keys, values = zip(*empty, strict=True)
        return KeyValueCache(jnp.zeros((rows,), jnp.int32), keys, values)

    def prefill(
        self, tokens: Int[Array, "rows time"], counts: Int[Array, " rows"], length: int
    ) -> tuple[Float[Array, "rows time width"], KeyValueCache]:
        """Reads the first tokens of rows in one pass, as `__call__` does (`decoding.prefill`)."""
        x = self.vocabulary.embed(tokens)
        angles = rotary_angles(tokens.shape[1], self._frequencies())
        one_document = jnp.zeros_like(tokens)
        keys, values = [], []
        for block in self.blocks:
            x, key, value = block.prefill(x, angles, one_document)
            key, value = cached(key, value, length)
            keys.append(key)
            values.append(value)
        return self.final_norm(x), KeyValueCache(counts, tuple(keys), tuple(values))

    def decode(
        self, cache: KeyValueCache, tokens: Int[Array, " rows"], active: Bool[Array, " rows"]
    ) -> tuple[Float[Array, "rows width"], KeyValueCache]:
        """Reads one more token of each row (`decoding.decode`)."""
        x = self.vocabulary.embed(tokens)
        angles = rotary_angles_at(cache.position, self._frequencies())
        keys, values = [], []
        for block, key, value in zip(self.blocks, cache.keys, cache.values, strict=True):
            x, key, value = block.decode(x, angles, cache.position, key, value)
            keys.append(key)
            values.append(value)
        # The token of an inactive row was written where its next one will overwrite it.
        position = cache.position + active
        return self.final_norm(x), KeyValueCache(position, tuple(keys), tuple(values))


def cached(
    keys: Float[Array, "rows time kv_heads size"],
    values: Float[Array, "rows time kv_heads size"],
    length: int,
) -> tuple[Float[Array, "rows kv_heads size length"], Float[Array, "rows kv_heads length size"]]:
    """Returns keys and values of the first tokens as a cache of `length` places holds them."""
    whole, more = (0, 0), (0, length - keys.shape[1])
    return (
        jnp.pad(keys.transpose(0, 2, 3, 1), (whole, whole, whole, more)),
        jnp.pad(values.transpose(0, 2, 1, 3), (whole, whole, more, whole)),
    )
