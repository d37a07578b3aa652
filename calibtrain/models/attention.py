"""Causal attention within documents, by the fastest means that a device has.

`plain` is our own, for the CPU: XLA's call is about half as fast there. Its gradient is written
out: the scores are computed again instead of kept (as flash attention does), transposed, so that
all but one of its products read their operands as they lie in memory; and keys that no query of a
block can see are skipped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

from calibtrain.errors import UserError

if TYPE_CHECKING:  # benchmarks run without it
    from jaxtyping import Bool, Float, Int

    from calibtrain.config import ModelConfig

    Query = Float[Array, "batch time heads size"]
    Key = Float[Array, "batch time kv_heads size"]
    Segments = Int[Array, "batch time"]

IMPLEMENTATIONS = ("plain", "xla", "cudnn", "splash")
_ONLY_ON = {"cudnn": ("gpu", "an NVIDIA GPU"), "splash": ("tpu", "a TPU")}
_HIDDEN = -1e30
_CACHED = 2**17
"""Scores made at once on a CPU, in all heads: half a MiB, so that a few of them fit in a cache."""


def attend(
    query: Query,
    key: Key,
    value: Key,
    segments: Segments,
    implementation: str = "plain",
    *,
    mapped: bool = False,
) -> Query:
    """Scaled dot-product attention of each token to those before it in its document.

    Query heads share key and value heads in groups (Ainslie et al. 2023).

    Args:
        query: one vector a token and head.
        key: the number of its heads divides that of the queries.
        value: likewise.
        segments: number of the document, within its row, that each token belongs to.
        implementation: one of `IMPLEMENTATIONS`.
        mapped: whether the call is traced under `jax.vmap`: JAX's rule for cuDNN (to 0.12) then
            wants a mask of each head; otherwise one serves all heads.
    """
    if implementation == "plain":
        return _plain(query, key, value, segments)
    if implementation == "splash":
        return _splash(query, key, value, segments)
    together = _together(segments)[:, None]
    if implementation == "cudnn" and mapped:
        together = jnp.broadcast_to(together, (len(query), query.shape[2], *together.shape[2:]))
    library: Any = implementation
    # told that it is causal, cuDNN leaves out what lies above the diagonal
    return jax.nn.dot_product_attention(
        query, key, value, mask=together, is_causal=True, implementation=library
    )


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
    exact: Any = jnp.float32
    scores = jnp.einsum("rkgd,rkld->rkgl", q, keys, preferred_element_type=exact)
    filled = jnp.arange(keys.shape[2]) <= position[:, None]  # all of it, once it went round
    scores = jnp.where(filled[:, None, None], scores, _HIDDEN)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(values.dtype)
    output = jnp.einsum("rkgl,rkld->rkgd", weights, values, preferred_element_type=exact) / total
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


def require_available(config: ModelConfig) -> None:
    """Raises a UserError where the implementation that is named needs another device than is here.

    Args:
        config: of the model.
    """
    needed, device = _ONLY_ON.get(config.attention, (None, ""))
    here = jax.default_backend()
    if config.kind == "transformer" and needed not in (None, here):
        raise UserError(
            f"model.attention: {config.attention} needs {device}, and JAX has a {here.upper()} "
            "here; allowed everywhere: auto, plain, xla"
        )


def _capability_here() -> float:
    device = jax.local_devices()[0]
    if "cuda" not in device.client.platform_version:
        return 0.0
    return float(getattr(device, "compute_capability", 0))


def causal_mask(segments: Segments) -> Bool[Array, "batch time time"]:
    """Who sees whom: tokens of the same document (segment) that are not later."""
    place = jnp.arange(segments.shape[-1])
    return _together(segments) & (place[:, None] >= place)


def _together(segments: Segments) -> Bool[Array, "batch time time"]:
    """Which tokens are of the same document."""
    return segments[:, :, None] == segments[:, None, :]


def _blocks(time: int) -> list[slice]:
    """At most 8 blocks of tokens, of 64 or more."""
    blocks = max(1, min(8, time // 64))
    edges = [round(i * time / blocks) for i in range(blocks + 1)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def _bias(mask: Bool[Array, "batch rows columns"]) -> Float[Array, "batch rows columns"]:
    """0 where the mask is true, else so low that a weight is 0.

    The same for all heads and layers, of which the compiler makes one.
    """
    return jnp.where(mask, 0.0, _HIDDEN)


def _for_group(bias: Array, group: int, axis: int) -> Array:
    return bias if group == 1 else jnp.concatenate([bias] * group, axis=axis)


def _over_rows(body: Callable[..., Any], *arrays: Array) -> Any:
    """body(*arrays), a few rows of the batch at a time: their scores then stay in the caches."""
    rows, time, heads = arrays[0].shape[:3]
    most = max(1, _CACHED // (heads * time * -(-time // len(_blocks(time)))))
    some = max(n for n in range(1, min(most, rows) + 1) if rows % n == 0)
    if some == rows:
        return body(*arrays)
    split = tuple(x.reshape(rows // some, some, *x.shape[1:]) for x in arrays)
    done = jax.lax.map(lambda parts: body(*parts), split)
    return jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), done)


def _split_heads(x: Query, kv_heads: int) -> Array:
    """[batch, kv heads, group, time, size]."""
    batch, time, heads, size = x.shape
    return jnp.moveaxis(x.reshape(batch, time, kv_heads, heads // kv_heads, size), 1, 3)


def _join_heads(x: Array) -> Query:
    batch, kv_heads, group, time, size = x.shape
    return jnp.moveaxis(x, 3, 1).reshape(batch, time, kv_heads * group, size)


def _queries(x: Array, queries: slice) -> Array:
    """Those tokens of all heads that share a key: [batch, kv heads, group * tokens, size]."""
    x = x[..., queries, :]
    return x.reshape(*x.shape[:2], -1, x.shape[-1])


def _product(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    """[batch, kv heads, rows, columns], summed over an axis of each in float32.

    Rows are of `left`, columns of `right`, so that nothing has to be turned in memory afterwards.
    """
    numbers = (((left_axis,), (right_axis,)), ((0, 1), (0, 1)))
    return jax.lax.dot_general(left, right, numbers, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _plain(query: Query, key: Key, value: Key, segments: Segments) -> Query:
    return _forward(query, key, value, segments)[0]


def _forward(query: Query, key: Key, value: Key, segments: Segments) -> tuple[Query, tuple]:
    def rows(query: Query, key: Key, value: Key, bias: Array) -> tuple[Query, Array]:
        q = _split_heads(query * query.shape[-1] ** -0.5, key.shape[2])
        k, v = key.swapaxes(1, 2), value.swapaxes(1, 2)
        outputs, normalizers = [], []
        for block in _blocks(query.shape[1]):
            seen = slice(0, block.stop)
            scores = _product(_queries(q, block), k[:, :, seen], 3, 3)
            scores += _for_group(bias[:, None, block, seen], q.shape[2], 2)
            top = jnp.max(scores, axis=-1, keepdims=True)
            weights = jnp.exp(scores - top)
            total = jnp.sum(weights, axis=-1, keepdims=True)
            output = _product(weights.astype(v.dtype), v[:, :, seen], 3, 2) / total
            shape = (*q.shape[:3], block.stop - block.start, q.shape[4])
            outputs.append(output.astype(query.dtype).reshape(shape))
            normalizers.append((top + jnp.log(total)).reshape(shape[:4]))
        return _join_heads(jnp.concatenate(outputs, axis=3)), jnp.concatenate(normalizers, axis=3)

    output, normalizer = _over_rows(rows, query, key, value, _bias(causal_mask(segments)))
    return output, (query, key, value, segments, output, normalizer)


def _backward(residuals: tuple, gradient: Query) -> tuple[Query, Key, Key, None]:
    time, _, size = gradient.shape[1:]

    def rows(
        query: Query,
        key: Key,
        value: Key,
        bias: Array,
        output: Query,
        normalizer: Array,
        gradient: Query,
    ) -> tuple[Query, Key, Key]:
        q = _split_heads(query * size**-0.5, key.shape[2])
        k, v = key.swapaxes(1, 2), value.swapaxes(1, 2)
        g, o = (_split_heads(x, key.shape[2]) for x in (gradient, output))
        drift = jnp.sum(g.astype(jnp.float32) * o.astype(jnp.float32), axis=-1)
        to_q = jnp.zeros((*q.shape[:2], size, *q.shape[2:4]), jnp.float32)
        to_k, to_v = [], []
        for block in _blocks(time):  # of keys; only queries from its first on can see them
            seeing = slice(block.start, time)
            q_seeing, g_seeing = _queries(q, seeing), _queries(g, seeing)
            a_query = (*q.shape[:2], 1, -1)
            scores = _product(k[:, :, block], q_seeing, 3, 3)  # keys x queries
            scores += _for_group(bias[:, None, block, seeing], q.shape[2], 3)
            weights = jnp.exp(scores - normalizer[..., seeing].reshape(a_query))
            to_weights = _product(v[:, :, block], g_seeing, 3, 3)
            to_scores = weights * (to_weights - drift[..., seeing].reshape(a_query))
            weights, to_scores = weights.astype(q.dtype), to_scores.astype(q.dtype)
            to_v.append(_product(weights, g_seeing, 3, 2))
            to_k.append(_product(to_scores, q_seeing, 3, 2))
            part = _product(k[:, :, block], to_scores, 2, 2)  # size x queries
            part = part.reshape(*to_q.shape[:4], -1)
            to_q = part if block.start == 0 else to_q.at[..., seeing].add(part)
        to_query = _join_heads(jnp.moveaxis(to_q * size**-0.5, 2, 4).astype(q.dtype))
        back = [jnp.concatenate(x, axis=2).astype(q.dtype).swapaxes(1, 2) for x in (to_k, to_v)]
        return to_query, back[0], back[1]

    query, key, value, segments, output, normalizer = residuals
    bias = _bias(causal_mask(segments).swapaxes(1, 2))
    return *_over_rows(rows, query, key, value, bias, output, normalizer, gradient), None


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
