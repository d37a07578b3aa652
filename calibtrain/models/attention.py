"""Causal attention within documents, by the fastest means that a device has.

`plain` is our own, for the CPU: XLA's call is about half as fast there. Its gradient is written
out: the scores are computed again instead of kept (as flash attention does), transposed, so that
all but one of its products read their operands as they lie in memory; and keys that no query of a
block can see are skipped.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int

    Query = Float[Array, "batch time heads size"]
    Key = Float[Array, "batch time kv_heads size"]
    Segments = Int[Array, "batch time"]

IMPLEMENTATIONS = ("plain", "xla", "cudnn", "splash")
_HIDDEN = -1e30


def attend(
    query: Query, key: Key, value: Key, segments: Segments, implementation: str = "plain"
) -> Query:
    """Scaled dot-product attention of each token to those before it in its document.

    Query heads share key and value heads in groups (Ainslie et al. 2023).

    Args:
        query: one vector a token and head.
        key: the number of its heads divides that of the queries.
        value: likewise.
        segments: number of the document, within its row, that each token belongs to.
        implementation: one of `IMPLEMENTATIONS`.
    """
    if implementation == "plain":
        return _plain(query, key, value, segments)
    if implementation == "splash":
        return _splash(query, key, value, segments)
    mask = causal_mask(segments)[:, None]
    library: Any = implementation
    return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=library)


def attend_to_cache(
    query: Float[Array, "rows heads size"],
    keys: Float[Array, "rows kv_heads length size"],
    values: Float[Array, "rows kv_heads length size"],
    position: Int[Array, " rows"],
) -> Float[Array, "rows heads size"]:
    """Attention of the token at `position` of each row to the tokens kept of it, itself among them.

    Token number t is kept at t modulo `length`: the last `length` tokens are seen.
    """
    rows, heads, size = query.shape
    q = (query * size**-0.5).reshape(rows, keys.shape[1], heads // keys.shape[1], size)
    scores = _product("rkgd,rkld->rkgl", q, keys)
    filled = jnp.arange(keys.shape[2]) <= position[:, None]  # all of it, once it went round
    scores = jnp.where(filled[:, None, None], scores, _HIDDEN)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    output = _product("rkgl,rkld->rkgd", weights.astype(values.dtype), values) / total
    return output.reshape(rows, heads, size).astype(query.dtype)


def choose(
    platform: str, dtype: jnp.dtype, size: int, time: int, capability: float | None = None
) -> str:
    """The implementation for a platform ("cpu", "gpu", "tpu"), type, head size and context.

    `capability` is the CUDA compute capability; none: of the GPU here (0: not NVIDIA's).
    """
    if platform == "cpu":
        return "plain"
    fits = dtype == jnp.bfloat16 and size % 8 == 0 and size <= 128 and time % 2 == 0
    if platform == "gpu" and fits:  # flash attention needs the Ampere generation or a newer one
        capability = _capability_here() if capability is None else capability
        if capability >= 8.0:
            return "cudnn"
    if platform == "tpu" and time % 128 == 0:
        return "splash"
    return "xla"


def _capability_here() -> float:
    device = jax.local_devices()[0]
    if "cuda" not in device.client.platform_version:
        return 0.0
    return float(getattr(device, "compute_capability", 0))


def causal_mask(segments: Segments) -> Bool[Array, "batch time time"]:
    """Who sees whom: tokens of the same document (segment) that are not later."""
    return _mask(segments, slice(None), slice(None))


def _mask(segments: Segments, queries: slice, keys: slice) -> Array:
    place = jnp.arange(segments.shape[-1])
    earlier = place[queries, None] >= place[None, keys]
    return (segments[:, queries, None] == segments[:, None, keys]) & earlier


def _blocks(time: int) -> list[slice]:
    """At most 8 blocks of queries, of 128 tokens or more."""
    blocks = max(1, min(8, time // 128))
    edges = [round(i * time / blocks) for i in range(blocks + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


@jax.custom_vjp
def _plain(query: Query, key: Key, value: Key, segments: Segments) -> Query:
    return _forward(query, key, value, segments)[0]


def _split_heads(query: Query, key: Key, value: Key) -> tuple[Array, Array, Array]:
    """[batch, kv heads, group, time, size] queries; [batch, kv heads, time, size] the others."""
    batch, time, heads, size = query.shape
    query = query.reshape(batch, time, key.shape[2], heads // key.shape[2], size)
    return jnp.moveaxis(query, 1, 3), key.swapaxes(1, 2), value.swapaxes(1, 2)


def _join_heads(query: Array) -> Query:
    batch, kv_heads, group, time, size = query.shape
    return jnp.moveaxis(query, 3, 1).reshape(batch, time, kv_heads * group, size)


_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def _forward(query: Query, key: Key, value: Key, segments: Segments) -> tuple[Query, tuple]:
    q, k, v = _split_heads(query * query.shape[-1] ** -0.5, key, value)
    outputs, normalizers = [], []
    for block in _blocks(query.shape[1]):
        seen = slice(0, block.stop)
        scores = _product("bkgtd,bksd->bkgts", q[..., block, :], k[:, :, seen])
        scores = jnp.where(_mask(segments, block, seen)[:, None, None], scores, _HIDDEN)
        top = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        output = _product("bkgts,bksd->bkgtd", weights.astype(v.dtype), v[:, :, seen]) / total
        outputs.append(output.astype(query.dtype))
        normalizers.append((top + jnp.log(total))[..., 0])
    output = jnp.concatenate(outputs, axis=3)
    residuals = (q, k, v, output, jnp.concatenate(normalizers, axis=3), segments)
    return _join_heads(output), residuals


def _backward(residuals: tuple, gradient: Query) -> tuple[Query, Key, Key, None]:
    q, k, v, output, normalizer, segments = residuals
    batch, kv_heads, group, time, size = q.shape
    g = jnp.moveaxis(gradient.reshape(batch, time, kv_heads, group, size), 1, 3)
    drift = jnp.sum(g.astype(jnp.float32) * output.astype(jnp.float32), axis=-1)
    to_q = jnp.zeros(q.shape, jnp.float32)
    to_k, to_v = [], []
    for block in _blocks(time):  # of keys; only queries from its first on can see them
        seeing = slice(block.start, time)
        q_seeing, g_seeing = q[..., seeing, :], g[..., seeing, :]
        scores = _product("bksd,bkgtd->bkgst", k[:, :, block], q_seeing)
        weights = jnp.exp(scores - normalizer[..., None, seeing])
        visible = _mask(segments, seeing, block).swapaxes(1, 2)[:, None, None]
        weights = jnp.where(visible, weights, 0.0)
        to_weights = _product("bksd,bkgtd->bkgst", v[:, :, block], g_seeing)
        to_scores = (weights * (to_weights - drift[..., None, seeing])).astype(q.dtype)
        to_v.append(_product("bkgst,bkgtd->bksd", weights.astype(q.dtype), g_seeing))
        to_k.append(_product("bkgst,bkgtd->bksd", to_scores, q_seeing))
        part = _product("bkgst,bksd->bkgtd", to_scores, k[:, :, block])
        to_q = part if block.start == 0 else to_q.at[..., seeing, :].add(part)
    to_query = _join_heads((to_q * size**-0.5).astype(q.dtype))
    back = [jnp.concatenate(x, axis=2).astype(q.dtype).swapaxes(1, 2) for x in (to_k, to_v)]
    return to_query, back[0], back[1], None


_plain.defvjp(_forward, _backward)


def _splash(query: Query, key: Key, value: Key, segments: Segments) -> Query:
    """The Pallas kernel for TPUs; documents are its segments."""
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernel,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    _, time, heads, size = query.shape
    causal = masks.MultiHeadMask([masks.CausalMask((time, time)) for _ in range(heads)])
    run = kernel.make_splash_mha_single_device(mask=causal)
    repeat = heads // key.shape[2]
    q, k, v = (x.swapaxes(1, 2) for x in (query * size**-0.5, key, value))
    k, v = (jnp.repeat(x, repeat, axis=1) for x in (k, v))
    ids = kernel.SegmentIds(q=segments, kv=segments)
    return jax.vmap(run)(q, k, v, ids).swapaxes(1, 2).astype(query.dtype)
